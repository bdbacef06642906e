"""Figures for people: aligned columns of plain text."""

import sys
from collections.abc import Sequence

import typer


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Numbers to the right, all else to the left."""
    texts = [[printable(cell) for cell in row] for row in rows]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] in (None, "-") for row in rows)
        for i in range(len(columns))
    ]
    widths = [max(len(column), *(len(row[i]) for row in texts), 0) for i, column in enumerate(columns)]

    def line(cells: Sequence[str]) -> str:
        aligned = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return "  ".join(aligned).rstrip()

    head = line([column.upper() for column in columns])
    return "\n".join([typer.style(head, bold=True) if sys.stdout.isatty() else head, *(line(row) for row in texts)])


def printable(value: object) -> str:
    """A stranger's name must not steer the terminal."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    text = ", ".join(value) if isinstance(value, list | tuple) else str(value)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) or "-"
