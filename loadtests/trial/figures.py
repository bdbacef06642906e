"""Tables of latencies and of ratios, from what was measured in rounds."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streaming.figures import percentile
from trial.load import Answer

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def latencies(cells: Mapping[str, Sequence[Answer]]) -> dict[str, dict[str, Any]]:
    """By variant: counts, and milliseconds of all of them, the failed ones included."""
    return {
        name: {
            "requests": len(answers),
            "failed": dict(Counter(f"{a.status} {a.reason}".strip() for a in answers if not a.good)),
            **{
                label: round(1000 * percentile([a.seconds for a in answers], share), 2)
                for label, share in SHARES.items()
                if answers
            },
        }
        for name, answers in cells.items()
    }


def table(what: str, told: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, of `latencies`."""
    lines = [f"| {what}, ms | requests | failed | {' | '.join(SHARES)} |", "| --- |" + " ---: |" * (2 + len(SHARES))]
    for name, row in told.items():
        failed = ", ".join(f"{reason}: {number}" for reason, number in row["failed"].items()) or "0"
        lines.append(
            f"| {name} | {row['requests']} | {failed} | {' | '.join(f'{row.get(s, 0):.1f}' for s in SHARES)} |"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Ratio:
    """Of two variants that were measured one after the other in each round: the median of the rounds' ratios, and the
    least and the most of them."""

    median: float
    least: float
    most: float


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Raises ValueError where there are not as many of one as of the other, or none."""
    ratios = [one / other for one, other in zip(above, below, strict=True)]
    if not ratios:
        raise ValueError("nothing was measured")
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def beside(
    cells: Mapping[str, Sequence[Sequence[Answer]]], base: str, shares: Sequence[str]
) -> dict[str, dict[str, Ratio]]:
    """By variant and share (`SHARES`): how many times as long as in the base, round by round. ``cells`` has the answers
    of each round. Raises ValueError where a round is missing."""

    def of(name: str, share: str) -> list[float]:
        return [percentile([answer.seconds for answer in answers], SHARES[share]) for answers in cells[name]]

    return {
        name: {share: ratio(of(name, share), of(base, share)) for share in shares} for name in cells if name != base
    }


def ratio_table(what: str, ratios: Mapping[str, Mapping[str, Ratio]]) -> str:
    """Markdown, of `beside`."""
    shares = list(next(iter(ratios.values()), {}))
    lines = [f"| {what} | {' | '.join(shares)} |", "| --- |" + " ---: |" * len(shares)]
    for name, row in ratios.items():
        cells = (f"{r.median:.2f} ({r.least:.2f} to {r.most:.2f})" for r in row.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
