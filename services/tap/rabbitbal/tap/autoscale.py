"""How many workers each pool should have: the figure that an autoscaler follows. Pure: no clock, no I/O.

For each pool, over the last `WINDOW` seconds:

    arrival rate  = growth of (requests done + running + waiting) / seconds
    load          = the larger of: arrival rate x mean slot time; mean number of occupied slots
    desired       = ceil( load / (utilisation x slots per worker)
                        + waiting x mean slot time / (backlog seconds x slots per worker) )

The first term is Little's law: slots that the arrivals keep occupied. They shall be a share ``utilisation`` of all
slots, since a queue in front of slots that are always occupied only grows. The second is the workers that run off what
waits now within ``backlog`` seconds, besides: one worker runs (slots per worker / mean slot time) requests a second.
That slots are occupied counts for itself: requests that last longer than the window are not in the mean slot time yet.

What is not known is not guessed: without a slot time (nothing has left a slot yet) something that waits asks for one
worker, or for those that there are. Slot time and slots per worker are remembered while a pool has no workers, so it
scales from zero by the same formula, to one at least.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fastapi import APIRouter

from rabbitbal.tap.fleet import WINDOW, Pool

# Of a pool. No worker is that slow; a stranger's figures may say so.
MOST_WORKERS = 10_000
MOST_POOLS = 500
# Seconds after which a pool that nobody names is forgotten.
AGE = 3600.0


@dataclass(frozen=True, slots=True)
class Need:
    """What a pool needs, and all that this was computed from. Times are in seconds, rates per second."""

    desired: int
    workers: int
    """That take requests of it."""
    drained: int
    slots: int
    slots_per_worker: float | None
    running: int
    waiting: int
    arrival_rate: float
    done_rate: float
    slot_time: float | None
    occupied: float
    """Slots, the mean over the window."""
    load: float
    for_load: float
    """Workers: the first term of the sum."""
    for_backlog: float
    """The second."""


def desired(
    *,
    arrival_rate: float,
    occupied: float,
    slot_time: float | None,
    slots_per_worker: float | None,
    waiting: int,
    workers: int,
    utilisation: float,
    backlog: float,
) -> tuple[int, float, float, float]:
    """Workers that a pool should have; the load, and the two terms of the sum."""
    load = max(arrival_rate * (slot_time or 0.0), occupied)
    # A worker has one at least; a stranger's may say otherwise.
    slots = max(slots_per_worker or 1.0, 1.0)
    for_load = load / (utilisation * slots)
    for_backlog = waiting * (slot_time or 0.0) / (backlog * slots)
    # Less what floating point adds to a sum that is whole.
    needed = math.ceil(min(for_load + for_backlog, MOST_WORKERS) - 1e-9)
    if waiting and (slot_time is None or slots_per_worker is None):
        needed = max(needed, workers)
    if waiting or arrival_rate > 0:
        needed = max(needed, 1)
    return needed, load, for_load, for_backlog


@dataclass(slots=True)
class _History:
    """Of one pool."""

    marks: "deque[tuple[float, int, int]]" = field(default_factory=deque)
    """When; requests done, running and waiting, in all; occupied slots."""
    done: int = 0
    slot_time: float | None = None
    slots_per_worker: float | None = None
    named: float = 0.0
    waiting: int = 0
    pool: Pool | None = None


class Autoscale:
    """Sampled once a second. ``utilisation`` is above 0 and at most 1; ``backlog`` is in seconds, above 0."""

    def __init__(self, utilisation: float, backlog: float) -> None:
        self._utilisation = utilisation
        self._backlog = backlog
        self._pools: dict[str, _History] = {}

    def sample(self, now: float, pools: Mapping[str, Pool], ready: Mapping[str, int]) -> None:
        """``now``: seconds of any clock that does not go back. ``ready``: what waits, where that is known."""
        for name in (*ready, *pools):
            if name not in self._pools and len(self._pools) < MOST_POOLS:
                self._pools[name] = _History()
        for name, history in list(self._pools.items()):
            pool, waiting = pools.get(name), ready.get(name)
            if pool is not None or waiting is not None:
                history.named = now
            elif now - history.named > AGE:
                del self._pools[name]
                continue
            _mark(history, now, pool, waiting)

    def needs(self) -> dict[str, Need]:
        """By pool."""
        return {name: self._need(history) for name, history in self._pools.items()}

    def _need(self, history: _History) -> Need:
        pool, marks = history.pool, history.marks
        rate = occupied = 0.0
        if marks:
            # A window that has just begun is no reason to see a rush in its first request.
            seconds = max(marks[-1][0] - marks[0][0], 5.0)
            rate = max(0, marks[-1][1] - marks[0][1]) / seconds
            occupied = sum(mark[2] for mark in marks) / len(marks)
        workers = 0 if pool is None else pool.workers
        needed, load, for_load, for_backlog = desired(
            arrival_rate=rate,
            occupied=occupied,
            slot_time=history.slot_time,
            slots_per_worker=history.slots_per_worker,
            waiting=history.waiting,
            workers=workers,
            utilisation=self._utilisation,
            backlog=self._backlog,
        )
        return Need(
            desired=needed,
            workers=workers,
            drained=0 if pool is None else pool.drained,
            slots=0 if pool is None else pool.slots,
            slots_per_worker=history.slots_per_worker,
            running=0 if pool is None else pool.running,
            waiting=history.waiting,
            arrival_rate=rate,
            done_rate=0.0 if pool is None else pool.done_rate,
            slot_time=history.slot_time,
            occupied=occupied,
            load=load,
            for_load=for_load,
            for_backlog=for_backlog,
        )

    def answer(self) -> dict[str, Any]:
        """For whoever scales: the result, with all that it was computed from."""
        needs = sorted(self.needs().items())
        return {
            "window_seconds": WINDOW,
            "utilisation": self._utilisation,
            "backlog_seconds": self._backlog,
            "pools": {name: _rounded(asdict(need)) for name, need in needs},
        }


def _mark(history: _History, now: float, pool: Pool | None, waiting: int | None) -> None:
    marks = history.marks
    if pool is not None:
        if pool.done < history.done:
            # The pool was forgotten, and is counted anew.
            marks.clear()
        history.done = pool.done
        history.slot_time = history.slot_time if pool.slot_time is None else pool.slot_time
        if pool.workers:
            history.slots_per_worker = pool.slots / pool.workers
    history.pool = pool
    if waiting is None:
        # The broker cannot be asked. What came meanwhile is in the figures once it can, unless it takes too long.
        if marks and now - marks[-1][0] > WINDOW:
            marks.clear()
            history.waiting = 0
        return
    history.waiting = waiting
    running = 0 if pool is None else pool.running
    marks.append((now, history.done + running + waiting, running))
    # One from before the window stays, to have all of the window in the difference.
    while len(marks) > 1 and marks[1][0] <= now - WINDOW:
        marks.popleft()


def _rounded(found: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in found.items()}


def router(autoscale: Autoscale) -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/autoscale")
    async def show() -> dict[str, Any]:
        """Workers that each pool should have, and why."""
        return autoscale.answer()

    return routes
