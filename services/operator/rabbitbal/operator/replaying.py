"""When each request is sent again: as it came, at a steady rate, or as fast as answers come."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from rabbitbal.operator.errors import Misused

T = TypeVar("T")

# Seconds behind its time from which a request counts as late.
LATE = 0.05
_PACE = re.compile(r"(?:(\d+(?:\.\d+)?)(x|/s))|max")
_MOST = 100_000.0


@dataclass(frozen=True, slots=True)
class Pace:
    """``speed`` is a multiple of the recorded one, ``rate`` in requests per second; neither: as fast as can be."""

    speed: float | None = None
    rate: float | None = None

    def due(self, number: int, recorded: float) -> float | None:
        """Seconds from the start of the replay. ``recorded`` is the same in the recording."""
        if self.speed is not None:
            return recorded / self.speed
        return number / self.rate if self.rate is not None else None


def pace(text: str) -> Pace:
    """Raises Misused."""
    found = _PACE.fullmatch(text)
    number = float(found[1]) if found is not None and found[1] else 1.0
    if found is None or not 0 < number <= _MOST:
        raise Misused(f"--rate {text!r} must read like 2x (twice as fast as recorded), 50/s, or max")
    if found[2] is None:
        return Pace()
    return Pace(speed=number) if found[2] == "x" else Pace(rate=number)


@dataclass(slots=True)
class Course:
    """How the replay went. ``late`` requests were sent behind their time, at most ``behind`` seconds."""

    sent: int = 0
    late: int = 0
    behind: float = 0.0
    seconds: float = 0.0
    interrupted: bool = False


async def run(
    items: Sequence[T],
    times: Sequence[float],
    pace: Pace,
    concurrency: int,
    call: Callable[[T], Awaitable[None]],
    stop: asyncio.Event,
) -> Course:
    """Call for each item at its time, with at most ``concurrency`` calls at a time: an open loop with that bound. When
    it is to ``stop``, calls that go on are cancelled. What a call raises ends all."""
    loop = asyncio.get_running_loop()
    course, began = Course(), loop.time()
    room = asyncio.Semaphore(concurrency)
    stopping = asyncio.ensure_future(stop.wait())

    async def one(item: T) -> None:
        try:
            await call(item)
        finally:
            room.release()

    try:
        async with asyncio.TaskGroup() as group:
            tasks: set[asyncio.Task[None]] = set()
            for number, item in enumerate(items):
                due = pace.due(number, times[number] - times[0])
                if not await _until(began + due if due is not None else 0.0, room, stopping):
                    break
                task = group.create_task(one(item))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                course.sent += 1
                behind = loop.time() - began - due if due is not None else 0.0
                course.late += behind > LATE
                course.behind = max(course.behind, behind)
            while tasks and not stopping.done():
                await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
            course.interrupted = stopping.done()
            for task in tasks:
                task.cancel()
    finally:
        stopping.cancel()
    course.seconds = loop.time() - began
    return course


async def _until(moment: float, room: asyncio.Semaphore, stopping: "asyncio.Task[Literal[True]]") -> bool:
    """Wait for the moment, and then for room. False when it is to stop."""
    left = moment - asyncio.get_running_loop().time()
    if left > 0:
        await asyncio.wait({stopping}, timeout=left)
    if stopping.done():
        return False
    if not room.locked():
        await room.acquire()
        return True
    taking = asyncio.ensure_future(room.acquire())
    await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        taking.cancel()
        return False
    return True
