"""What the worker has done since its start, told to the tap every few seconds (`rabbitbal.wire.figures`)."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from rabbitbal.runtime.broker import Disconnected
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.figures import MOST_POOLS, PERIOD, PoolFigures, WorkerFigures, encode_figures
from rabbitbal.worker.post import Broker
from rabbitbal.worker.runner import Runner
from rabbitbal.worker.settings import Membership

# Seconds for the last ones: a worker that leaves waits for nobody.
FAREWELL = 1.0

_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Figures:
    """``drained`` tells whether the operator has told the worker to take no requests. It goes on telling then."""

    def __init__(
        self,
        worker: str,
        broker: Broker,
        runner: Runner,
        memberships: tuple[Membership, ...],
        drained: Callable[[], bool],
    ) -> None:
        self._worker = worker
        self._broker = broker
        self._runner = runner
        # Of more nobody could be told.
        self._memberships = memberships[:MOST_POOLS]
        self._drained = drained
        self._since = int(time.time() * 1000)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._broker.wait_up()
            await self._tell(PERIOD, leaving=False)
            await asyncio.sleep(PERIOD)

    async def leave(self) -> None:
        """Say that these are the last."""
        await self._tell(FAREWELL, leaving=True)

    def now(self, *, leaving: bool = False) -> WorkerFigures:
        return WorkerFigures(
            at=int(time.time() * 1000),
            since=self._since,
            running=self._runner.running,
            streams=self._runner.streams,
            drained=self._drained(),
            memory=resident(_STATM.read_text()),
            pools={membership.pool: self._pool(membership) for membership in self._memberships},
            leaving=leaving,
        )

    def _pool(self, membership: Membership) -> PoolFigures:
        tally = self._runner.tallies[membership.pool]
        return PoolFigures(membership.slots, membership.priority, tally.running, tally.done, tally.busy)

    async def _tell(self, patience: float, *, leaving: bool) -> None:
        message = Envelope(Kind.FIGURES, "figures", self._worker, sent=int(time.time() * 1000))
        key = topology.figures_key("worker", self._worker)
        # Those that are lost are not missed: the next ones say all that they said.
        with contextlib.suppress(Disconnected):
            payload = encode_figures(self.now(leaving=leaving))
            await self._broker.publish(topology.EVENTS, key, message, payload, timeout=patience)


def resident(statm: str) -> int:
    """Bytes of memory, by proc_pid_statm(5): the second number is the pages that are there."""
    return int(statm.split()[1]) * _PAGE
