"""Plays the conformance list against a server, and sets two servers side by side."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping

from integration.client import Address
from integration.websocket.case import Case, Transcript
from integration.websocket.cases import CASES
from integration.websocket.cases_more import MORE_CASES
from integration.websocket.peer import play

ALL_CASES = [*CASES, *MORE_CASES]
AT_ONCE = 6

Transcripts = dict[str, Transcript]


def conformance(address: Address, cases: Iterable[Case] = ALL_CASES) -> Transcripts:
    """By the names of the cases."""

    async def run() -> Transcripts:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(case: Case) -> tuple[str, Transcript]:
            async with gate:
                return case.name, await play(case, address)

        return dict(await asyncio.gather(*map(one, cases)))

    return asyncio.run(run())


def regressions(direct: Transcripts, through: Transcripts, cases: Iterable[Case] = ALL_CASES) -> dict[str, str]:
    """The cases that pass directly and fail through the proxy, and why."""
    found = {}
    for case in cases:
        if not direct[case.name].failure(case) and (why := through[case.name].failure(case)):
            found[f"{case.name} {case.what}"] = why
    return found


def table(columns: Mapping[str, Transcripts], cases: Iterable[Case] = ALL_CASES) -> str:
    """Markdown: sections with their sums, then each case that does not pass everywhere or ends differently."""
    cases = list(cases)
    names = list(columns)
    lines = [
        f"| section | cases | {' | '.join(f'passed {name}' for name in names)} |",
        "| --- " * (len(names) + 2) + "|",
    ]
    for section, count in Counter(case.section for case in cases).items():
        passed = [sum(not seen[c.name].failure(c) for c in cases if c.section == section) for seen in columns.values()]
        lines.append(f"| {section} | {count} | {' | '.join(map(str, passed))} |")
    passed = [sum(not seen[case.name].failure(case) for case in cases) for seen in columns.values()]
    lines += [f"| all | {len(cases)} | {' | '.join(map(str, passed))} |", ""]
    lines += [f"| case | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    for case in cases:
        failures = [seen[case.name].failure(case) for seen in columns.values()]
        told = [str(seen[case.name]) for seen in columns.values()]
        if any(failures) or len(set(told)) > 1:
            shown = [f"FAILED: {why}" if why else f"passed: {seen}" for why, seen in zip(failures, told, strict=True)]
            lines.append(f"| {case.name} {case.what} | {' | '.join(shown)} |")
    everywhere = [case.name for case in cases if not any(seen[case.name].failure(case) for seen in columns.values())]
    return "\n".join([*lines, "", f"passed by all ({len(everywhere)}): {', '.join(everywhere)}"])
