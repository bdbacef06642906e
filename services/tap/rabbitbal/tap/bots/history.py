"""What is remembered of one client: counts over a window, of a fixed size whatever the client does."""

import math
from array import array
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

# The window is cut into so many slots; the oldest falls out as a new one begins.
SLOTS = 6
# Bits of the sketch that counts distinct paths (linear counting). It tells up to some hundreds; more are as many.
_BITS = 512
_FULL = 1500
# Knuth's multiplier: neighbours that CRC-32 keeps apart fall as they may, which is what the estimate reckons with.
_MIXED = 2_654_435_761


class Count(IntEnum):
    REQUESTS = 0
    # Of those, the ones for no picture, style or script.
    PAGES = 1
    # Fields missing that every browser sends, summed up.
    LACKING = 2
    # Requests that call themselves a browser's and lack what browsers send.
    POSING = 3
    # HEAD, and methods that no page uses.
    ODD = 4
    # What an application answered, and of that 4xx and 5xx.
    ANSWERS = 5
    ERRORS = 6
    GUESSES = 7
    ATTACKS = 8
    DISALLOWED = 9
    # Pages of HTML, and of those the ones that were not reached by a link.
    HTML = 10
    UNLINKED = 11
    ASSETS = 12


_WIDTH = len(Count)


@dataclass(frozen=True, slots=True)
class Facts:
    """The window of one client at a moment. ``span`` is in seconds: the window, or the time since the first request."""

    counts: tuple[int, ...]
    span: float
    paths: int
    """About so many different ones, of pages."""
    agent: str
    example: str
    """The newest path that scanners ask for."""
    forbidden: str
    """The newest path that robots.txt disallows."""
    read_robots: bool

    def __getitem__(self, count: Count) -> int:
        return self.counts[count]

    def share(self, part: Count, whole: Count) -> float:
        return self.counts[part] / self.counts[whole] if self.counts[whole] else 0.0


class History:
    """``now`` is in seconds of one clock. What comes late counts as if it came now."""

    __slots__ = (
        "_counts", "_fresh", "_half", "_old", "_slot", "agent", "example", "first", "forbidden", "group", "newest",
        "read_robots",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self._counts = array("I", bytes(4 * _WIDTH * SLOTS))
        self._slot = 0
        # Bits of the paths of this half of the window, and of the one before.
        self._fresh = self._old = self._half = 0
        self.first = self.newest = now
        self.agent = self.example = self.forbidden = ""
        self.group: str | None = None
        self.read_robots = -math.inf

    def advance(self, now: float, window: float) -> None:
        """Let fall out of the window what is too old."""
        if now - self.newest > window:
            self.first = now
        self.newest = max(self.newest, now)
        slot = int(now * SLOTS / window)
        if slot <= self._slot:
            return
        empty = array("I", bytes(4 * _WIDTH))
        for number in range(max(self._slot + 1, slot - SLOTS + 1), slot + 1):
            start = number % SLOTS * _WIDTH
            self._counts[start : start + _WIDTH] = empty
        half = int(now * 2 / window)
        if half != self._half:
            self._old, self._fresh = (self._fresh if half == self._half + 1 else 0), 0
            self._half = half
        self._slot = slot

    def add(self, count: Count, number: int = 1) -> None:
        self._counts[self._slot % SLOTS * _WIDTH + count] += number

    def visit(self, path: bytes) -> None:
        # Not Python's own hash: that differs from one process to the next, and so would what borders on a verdict.
        self._fresh |= 1 << (crc32(path) * _MIXED >> 20) % _BITS

    def facts(self, window: float) -> Facts:
        return Facts(
            tuple(sum(self._counts[count::_WIDTH]) for count in range(_WIDTH)),
            min(self.newest - self.first, window),
            _distinct((self._fresh | self._old).bit_count()),
            self.agent,
            self.example,
            self.forbidden,
            self.newest - self.read_robots <= window,
        )


def _distinct(bits: int) -> int:
    """How many different paths have set so many bits, most likely."""
    return _FULL if bits >= _BITS else round(-_BITS * math.log(1 - bits / _BITS))
