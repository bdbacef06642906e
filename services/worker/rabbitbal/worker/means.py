"""What the runs of a worker have in common: why one may be stopped, and what all of them share."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

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
