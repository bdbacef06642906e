"""One recording: which requests it is of, and the lines that its reader is given, as fast as the reader takes them."""

import asyncio
import json
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from rabbitbal.wire.message import Request
from rabbitbal.wire.recording import Exchange

# What waits for one reader.
QUEUE = 2000
QUEUE_BYTES = 4 * 1024 * 1024
# Seconds from one line of counts to the next.
PERIOD = 1.0
# Seconds of rest that are worth a timer.
NAP = 0.005


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests are recorded; None is any. ``sample`` is a share of them, chosen by their ids."""

    route: str | None = None
    pool: str | None = None
    method: str | None = None
    path: str | None = None
    sample: float = 1.0

    def takes(self, name: str, route: str | None, request: Request) -> bool:
        """What can be said before the ending: the pool cannot."""
        return (
            (self.route is None or self.route == route)
            and (self.method is None or self.method == request.method)
            and (self.path is None or request.target.startswith(self.path.encode("utf-8", "replace")))
            and (self.sample >= 1.0 or zlib.crc32(name.encode()) < self.sample * (1 << 32))
        )


class Source(Protocol):
    """Whoever makes lines of exchanges."""

    forgotten: int

    @property
    def rest(self) -> int:
        """How many times as long as a line has taken a recording is to rest behind it."""

    def line(self, exchange: Exchange) -> bytes | None:
        """None where there is nothing that could be given out."""


class Recording:
    """What one reader is given."""

    def __init__(self, source: Source, wanted: Wanted, limit: int | None, seconds: float | None) -> None:
        self.wanted = wanted
        self._source = source
        self._limit = limit
        self._seconds = seconds
        self._waiting: deque[tuple[Exchange, int]] = deque()
        self._bytes = 0
        self._came = asyncio.Event()
        self._taken = 0
        self._forgotten = source.forgotten
        self._leaving = False
        self.recorded = 0
        self.skipped = 0

    def leave(self) -> None:
        """The tap stops."""
        self._leaving = True
        self._came.set()

    def offer(self, exchange: Exchange, size: int) -> None:
        """Never waits: what finds no room is skipped, and counted."""
        if self._limit is not None and self._taken == self._limit:
            return
        if len(self._waiting) == QUEUE or self._bytes + size > QUEUE_BYTES:
            self.skipped += 1
            return
        self._taken += 1
        self._waiting.append((exchange, size))
        self._bytes += size
        self._came.set()

    async def lines(self) -> AsyncIterator[bytes]:
        """An exchange or the counts in each. The last one says why it is the last."""
        loop = asyncio.get_running_loop()
        end = None if self._seconds is None else loop.time() + self._seconds
        told, owed = loop.time(), 0.0
        yield self._counts()
        while self._limit is None or self.recorded < self._limit:
            now = loop.time()
            if self._leaving or (end is not None and now >= end):
                yield self._counts("leaving" if self._leaving else "seconds")
                return
            if now - told >= PERIOD:
                told = now
                yield self._counts()
            if not self._waiting:
                self._came.clear()
                left = min(told + PERIOD, end if end is not None else told + PERIOD) - now
                try:
                    async with asyncio.timeout(left):
                        await self._came.wait()
                except TimeoutError:
                    pass
                continue
            exchange, size = self._waiting.popleft()
            self._bytes -= size
            began = time.perf_counter()
            line = self._source.line(exchange)
            owed += (time.perf_counter() - began) * self._source.rest
            if line is None:
                self.skipped += 1
                self._taken -= 1
                continue
            self.recorded += 1
            yield line
            # A fast reader makes no pause by itself, and the tap has more to do.
            await asyncio.sleep(owed if owed >= NAP else 0)
            owed = 0.0 if owed >= NAP else owed
        yield self._counts("limit")

    def _counts(self, end: str | None = None) -> bytes:
        forgotten = self._source.forgotten - self._forgotten
        counts = {"recorded": self.recorded, "skipped": self.skipped, "forgotten": forgotten}
        return json.dumps(counts | ({"end": end} if end else {})).encode() + b"\n"
