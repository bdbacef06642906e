"""Open-loop load: seeded arrivals that wait for nobody's answer, counted from when they were due."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from openloop import PATIENCE, Client


@dataclass
class Answer:
    """Of one request. ``seconds`` count from the scheduled arrival."""

    key: str
    status: int = 0
    """0: none at all."""
    reason: str = ""
    pool: str = ""
    route: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return self.status == 200 and not self.reason


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Poisson: the seconds at which requests are due."""
    rng, due = random.Random(seed), [0.0]
    while due[-1] < seconds:
        due.append(due[-1] + rng.expovariate(rate))
    return due[1:-1]


class Load:
    """Requests to one server, on connections that stay."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._client = Client(parts.hostname or "", parts.port or 80)
        self._host = parts.netloc

    async def run(self, due: list[float], ask: Callable[[int], tuple[str, str, str]]) -> list[Answer]:
        """``ask`` gives the request of a number: its target, its key, and header lines with their ends."""
        start = time.monotonic() + 0.05
        tasks = []
        for number, at in enumerate(due):
            await asyncio.sleep(max(start + at - time.monotonic(), 0))
            tasks.append(asyncio.create_task(self._one(*ask(number), start + at)))
        return list(await asyncio.gather(*tasks))

    async def full(self, seconds: float, at_once: int, target: str) -> tuple[float, int]:
        """Closed: each of so many clients asks again once it has its answer. Answers per second, and how many of them
        were not good."""
        start = time.monotonic()
        end = start + seconds

        async def client(number: int) -> list[Answer]:
            answers: list[Answer] = []
            while (now := time.monotonic()) < end:
                answers.append(await self._one(target, f"{number}-{len(answers)}", "", now))
            return answers

        answers = [a for each in await asyncio.gather(*map(client, range(at_once))) for a in each]
        return len(answers) / (time.monotonic() - start), sum(not answer.good for answer in answers)

    async def _one(self, target: str, key: str, fields: str, due: float) -> Answer:
        answer = Answer(key)
        try:
            async with asyncio.timeout(PATIENCE):
                head = f"GET {target} HTTP/1.1\r\nHost: {self._host}\r\n{fields}\r\n"
                answer.status, found = await self._client.request(head.encode())
            answer.reason = found.get("rabbitbal-error", "")
            answer.pool = found.get("rabbitbal-pool", "")
            answer.route = found.get("rabbitbal-route", "")
        except (OSError, EOFError, TimeoutError) as error:
            answer.reason = f"no answer: {type(error).__name__}"
        answer.seconds = time.monotonic() - due
        return answer
