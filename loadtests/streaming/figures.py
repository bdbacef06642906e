"""Numbers for people."""

import argparse
from collections.abc import Sequence

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def size(text: str) -> int:
    """``50M``, ``1G``, ``65536``: bytes."""
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    if unit not in UNITS or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no size: 65536, 256K, 50M, 1G")
    return int(number) * UNITS[unit]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the others does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def comparison(what: str, through: Sequence[float], direct: Sequence[float]) -> str:
    """Markdown, from seconds."""
    lines = [f"| {what}, ms | count | p50 | p90 | p99 | max |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    rows = {
        name: [1000 * percentile(values, share) for share in (0.5, 0.9, 0.99, 1)]
        for name, values in (("through", through), ("direct", direct))
        if values
    }
    if len(rows) == 2:
        rows["difference"] = [mine - other for mine, other in zip(*rows.values(), strict=True)]
    counts = {"through": len(through), "direct": len(direct)}
    for name, row in rows.items():
        lines.append(f"| {name} | {counts.get(name, '')} | {' | '.join(f'{value:.2f}' for value in row)} |")
    return "\n".join(lines)
