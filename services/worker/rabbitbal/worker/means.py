"""What the runs of a worker have in common: why one may be stopped, and what all of them share."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from rabbitbal.runtime.broker import Delivery
from rabbitbal.runtime.probing import Prober
from rabbitbal.worker.post import Broker
from rabbitbal.worker.targets.contract import Target

if TYPE_CHECKING:
    from rabbitbal.worker.run import Run


class Stop(Enum):
    """Why a run ends before its answer is complete."""

    UNWANTED = "unwanted"
    BROKEN = "broken"
    HANDED_BACK = "handed back"


@dataclass
class Tally:
    """What was run for one pool."""

    running: int = 0
    """Slots that are occupied."""
    done: int = 0
    """Requests that have left their slot."""
    busy: int = 0
    """Microseconds that slots were occupied for those."""


class Stay:
    """One delivery's time in a slot of a pool: until it is settled, or given up."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._began: float | None = None

    def begin(self, delivery: Delivery) -> None:
        self._began = time.perf_counter()
        self._tally.running += 1
        settling = delivery.settling

        def left() -> None:
            self.end()
            settling()

        delivery.settling = left

    def end(self) -> None:
        """A second time counts for nothing."""
        if self._began is None:
            return
        self._tally.busy += int((time.perf_counter() - self._began) * 1e6)
        self._tally.running -= 1
        self._tally.done += 1
        self._began = None


@dataclass
class Means:
    """What all runs of a worker share."""

    worker: str
    broker: Broker
    target: Target
    prober: Prober
    claim_after: float
    streams: int
    detached: "set[Run]" = field(default_factory=set)
    # The loop holds tasks weakly.
    chores: set[asyncio.Task[None]] = field(default_factory=set)
    stream_limit: float | None = None
    """Seconds that a stream may go on; set when the worker is told to leave."""

    def spawn(self, chore: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(chore)
        self.chores.add(task)
        task.add_done_callback(self.chores.discard)
        return task
