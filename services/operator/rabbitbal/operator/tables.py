"""Figures for people: aligned columns of plain text, within the width of the terminal, or of 100 columns."""

import itertools
import shutil
import sys
from collections.abc import Sequence

import typer

WIDTH = 100
GAP = "  "
# A column is not made narrower than this, whatever the terminal.
NARROWEST = 12


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Numbers to the right, all else to the left. Lists and long texts go on in the lines below."""
    heads = [column.upper() for column in columns]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        for i in range(len(columns))
    ]
    texts = [[_words(cell) for cell in row] for row in rows]
    widths = [max([len(heads[i]), *(len(", ".join(row[i])) for row in texts)], default=0) for i in range(len(columns))]
    _narrow(widths, right, [len(head) for head in heads])

    def line(cells: Sequence[str]) -> str:
        aligned = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return GAP.join(aligned).rstrip()

    head = line(heads)
    lines = [typer.style(head, bold=True) if sys.stdout.isatty() else head]
    for row in texts:
        wrapped = [_wrap(words, width) for words, width in zip(row, widths, strict=True)]
        lines.extend(line(cells) for cells in itertools.zip_longest(*wrapped, fillvalue=""))
    return "\n".join(lines)


def printable(value: object) -> str:
    """A stranger's name must not steer the terminal."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    return "".join(c if c.isprintable() else _escaped(c) for c in str(value)) or "-"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _words(cell: object) -> list[str]:
    if isinstance(cell, list | tuple):
        return [printable(each) for each in cell] or ["-"]
    return [printable(cell)]


def _narrow(widths: list[int], right: list[bool], heads: list[int]) -> None:
    """Take what is too much from the widest column of text, again and again."""
    most = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    while sum(widths) + len(GAP) * (len(widths) - 1) > most:
        able = [i for i, width in enumerate(widths) if not right[i] and width > max(NARROWEST, heads[i])]
        if not able:
            return
        widths[max(able, key=lambda i: widths[i])] -= 1


def _wrap(words: list[str], width: int) -> list[str]:
    """The words with commas between, in lines; one that is longer than a line is broken."""
    lines = [""]
    for number, word in enumerate(words):
        text = word + ("," if number < len(words) - 1 else "")
        if lines[-1] and len(lines[-1]) + 1 + len(text) <= width:
            lines[-1] += " " + text
            continue
        pieces = _broken(text, width)
        lines[-1:] = [*([lines[-1]] if lines[-1] else []), *pieces]
    return lines


def _broken(text: str, width: int) -> list[str]:
    """At its spaces where that is possible."""
    pieces = []
    while len(text) > width:
        space = text.rfind(" ", 1, width + 1)
        end = space if space > 0 else width
        pieces.append(text[:end])
        text = text[end:].lstrip(" ")
    return [*pieces, text] if text else pieces
