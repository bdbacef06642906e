"""The generated requests to both servers, and what was seen: by the client, and by the application."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from integration.client import Address
from integration.differential.case import Case
from integration.differential.exchange import Answer, exchange

AT_ONCE = 16

Seen = dict[str, Any]


@dataclass
class Observation:
    """One request on one side. ``runs``: what the application saw, once for each time it ran; ``follows``: how often
    it saw the second request."""

    answer: Answer
    runs: list[Seen]
    follows: int


def exchanges(cases: Iterable[Case], direct: Address, through: Address) -> dict[str, tuple[Answer, Answer]]:
    """By the cases' keys: the answer without and with the proxy, `AT_ONCE` cases at a time."""

    async def run() -> dict[str, tuple[Answer, Answer]]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(case: Case) -> tuple[str, tuple[Answer, Answer]]:
            async with gate:
                return case.key, (await exchange(direct, case), await exchange(through, case))

        return dict(await asyncio.gather(*map(one, cases)))

    return asyncio.run(run())


def runs(lines: Iterable[str]) -> dict[str, list[Seen]]:
    """What `apps/mirror.py` printed, by key."""
    found: dict[str, list[Seen]] = defaultdict(list)
    for line in lines:
        if '"event": "mirror"' in line:
            seen = json.loads(line)
            del seen["event"]
            found[seen.pop("key")].append(seen)
    return found
