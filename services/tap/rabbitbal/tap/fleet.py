"""The newest figures of each edge and each worker, and what they come to for each pool.

Edges and workers count from their start. So a message that is lost or comes twice costs nothing, and what was done
between two of them is a difference. Whoever may publish events can make up a sender: there is room for so many of
each and no more, and whoever is silent is forgotten.
"""

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rabbitbal.tap.observation import Observation
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.figures import EdgeFigures, PoolFigures, WorkerFigures, decode_figures

# Seconds of silence after which a sender is no more: seven of its figures in a row are missing.
SILENCE = 15.0
MOST_EDGES = 500
MOST_WORKERS = 2000
MOST_POOLS = 500
# Seconds over which rates are taken: as many figures of each worker as smooth out when they come, and short enough
# that a rate follows the load.
WINDOW = 30.0

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

T = TypeVar("T", EdgeFigures, WorkerFigures)


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """Times are in seconds since the Unix epoch, by the tap's clock."""

    figures: T
    read: float
    first: float
    """When its first figures were read."""
    before: T | None = None
    """Those that came before, of the same life of the sender."""

    def rate(self, name: str) -> float | None:
        """By how much a count grew each second, between the last two figures. None where there is only one."""
        if self.before is None or self.figures.at <= self.before.at:
            return None
        grown: int = getattr(self.figures, name) - getattr(self.before, name)
        return max(0, grown) / (self.figures.at - self.before.at) * 1000


@dataclass(frozen=True, slots=True)
class Pool:
    """What all workers are to a pool together. ``done`` and ``busy`` are counted since this tap knows the pool, and do
    not fall when a worker leaves."""

    workers: int
    """That take requests of it."""
    drained: int
    """That are in it, but told to take none."""
    slots: int
    """Of those that take requests."""
    running: int
    done: int
    busy: int
    """Microseconds."""
    done_rate: float
    """Requests a second that left their slots, over `WINDOW`, or as long as the pool is known."""
    slot_time: float | None
    """Seconds that a request occupied its slot, the mean over `WINDOW`. Where none has left its slot since, it is what
    it was last, and None where none ever did."""


@dataclass(slots=True)
class _Tally:
    """Of one pool, over all workers that there ever were."""

    done: int = 0
    busy: int = 0
    slot_time: float | None = None
    marks: "deque[tuple[float, int, int]]" = field(default_factory=deque)
    """What was counted when, about once a second."""

    def add(self, now: float, done: int, busy: int) -> None:
        self.done += done
        self.busy += busy
        if not self.marks or now - self.marks[-1][0] >= 1:
            self.marks.append((now, self.done, self.busy))
        # One from before the window stays, to have all of the window in the difference.
        while len(self.marks) > 1 and self.marks[1][0] <= now - WINDOW:
            self.marks.popleft()

    def rates(self, now: float) -> tuple[float, float | None]:
        """Requests a second, and seconds of a slot for each."""
        since, done, busy = self.marks[0]
        done, busy = self.done - done, self.busy - busy
        if done > 0:
            self.slot_time = busy / done / 1e6
        return done / max(now - since, 1.0), self.slot_time


class Fleet:
    """A part of the tap. ``clock`` gives seconds since the Unix epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._edges: dict[str, Seen[EdgeFigures]] = {}
        self._workers: dict[str, Seen[WorkerFigures]] = {}
        self._tallies: dict[str, _Tally] = {}
        self._looked = 0.0
        self.bad = 0
        """Messages of kind `figures` that made no sense."""
        self.turned_away = 0
        """Figures that there was no room for: of senders, or of pools, beyond the bounds."""

    def see(self, seen: Observation) -> None:
        if seen.envelope.kind is not Kind.FIGURES:
            return
        name = seen.envelope.app_id
        try:
            if not _ID.fullmatch(name):
                raise WireError("an id must be 1 to 64 letters, digits, - and _")
            figures = decode_figures(seen.payload)
            role = "edge" if isinstance(figures, EdgeFigures) else "worker"
            # The broker has checked who may use the key, and nobody else the name.
            if seen.key and seen.key != topology.figures_key(role, name):
                raise WireError("the routing key is not the sender's")
        except WireError:
            self.bad += 1
            return
        self._forget(seen.at)
        if isinstance(figures, EdgeFigures):
            self._keep(self._edges, MOST_EDGES, name, figures, seen.at)
        elif (known := self._workers.get(name)) is None or _newer(figures, known.figures):
            self._count(figures, None if known is None else known.figures, seen.at)
            self._keep(self._workers, MOST_WORKERS, name, figures, seen.at)

    @property
    def edges(self) -> dict[str, Seen[EdgeFigures]]:
        """By id. Not to be changed."""
        self._forget(self._clock())
        return self._edges

    @property
    def workers(self) -> dict[str, Seen[WorkerFigures]]:
        """By id. Not to be changed."""
        self._forget(self._clock())
        return self._workers

    def pools(self) -> dict[str, Pool]:
        """By name: those that a worker is in, or was in within the window."""
        now = self._clock()
        self._forget(now)
        shares: dict[str, list[tuple[bool, PoolFigures]]] = {name: [] for name in self._tallies}
        for worker in self._workers.values():
            for name, share in worker.figures.pools.items():
                if name in shares:
                    shares[name].append((worker.figures.drained, share))
        return {name: _pool(tally, shares[name], now) for name, tally in self._tallies.items()}

    def _keep(self, known: dict[str, Seen[T]], most: int, name: str, figures: T, at: float) -> None:
        before = known.get(name)
        if before is not None and not _newer(figures, before.figures):
            # Read before, or overtaken.
            return
        if figures.leaving:
            known.pop(name, None)
        elif before is None and len(known) >= most:
            self.turned_away += 1
        elif before is None or figures.since != before.figures.since:
            known[name] = Seen(figures, at, at)
        else:
            known[name] = Seen(figures, at, before.first, before.figures)

    def _count(self, figures: WorkerFigures, before: WorkerFigures | None, at: float) -> None:
        """What it has done since it was heard of last. Of one that is new nobody knows when it did it."""
        for name, share in figures.pools.items():
            tally = self._tallies.get(name)
            if tally is None:
                if len(self._tallies) >= MOST_POOLS:
                    self.turned_away += 1
                    continue
                tally = self._tallies[name] = _Tally()
            known = None if before is None or before.since != figures.since else before.pools.get(name)
            done, busy = (0, 0) if known is None else (share.done - known.done, share.busy - known.busy)
            tally.add(at, max(0, done), max(0, busy))

    def _forget(self, now: float) -> None:
        if 0 <= now - self._looked < 1:
            return
        self._looked = now
        # A dictionary's first is not its oldest: those that speak keep their places. There are few.
        for known in (self._edges, self._workers):
            for name in [name for name, one in known.items() if now - one.read > SILENCE]:
                del known[name]
        for name in [name for name, tally in self._tallies.items() if now - tally.marks[-1][0] > WINDOW]:
            del self._tallies[name]


def _newer(figures: EdgeFigures | WorkerFigures, known: EdgeFigures | WorkerFigures) -> bool:
    return (figures.since, figures.at) > (known.since, known.at)


def _pool(tally: _Tally, shares: list[tuple[bool, PoolFigures]], now: float) -> Pool:
    done_rate, slot_time = tally.rates(now)
    taking = [share for drained, share in shares if not drained]
    return Pool(
        workers=len(taking),
        drained=len(shares) - len(taking),
        slots=sum(share.slots for share in taking),
        running=sum(share.running for _, share in shares),
        done=tally.done,
        busy=tally.busy,
        done_rate=done_rate,
        slot_time=slot_time,
    )
