"""Tells edges of suspects: on a connection of its own, so that a broker that takes nothing holds up no reading."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog

from rabbitbal.runtime.broker import Disconnected, Publisher
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.verdicts import REPEATED, Verdict, encode_verdict

log = structlog.get_logger()

# Verdicts that wait to be told. What does not fit is told with the next round.
MOST_WAITING = 1000
TIMEOUT = 5.0


class Reporter:
    """What is lost is said again after ``period`` seconds, as all that holds is."""

    def __init__(
        self, tap: str, publisher: Publisher, in_force: Callable[[], list[Verdict]], period: float = REPEATED
    ) -> None:
        self._tap = tap
        self._publisher = publisher
        self._in_force = in_force
        self._period = period
        self._waiting: OrderedDict[str, Verdict] = OrderedDict()
        self._came = asyncio.Event()
        self.told = 0
        self.lost = 0

    def tell(self, verdict: Verdict) -> None:
        """Soon. It never waits."""
        if verdict.client in self._waiting or len(self._waiting) < MOST_WAITING:
            self._waiting[verdict.client] = verdict
            self._came.set()
        else:
            self.lost += 1

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publisher.link.run())
            group.create_task(self._repeat())
            group.create_task(self._publish())

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            for verdict in self._in_force():
                self.tell(verdict)

    async def _publish(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            await self._publisher.link.up.wait()
            while self._waiting:
                _, verdict = self._waiting.popitem(last=False)
                await self._say(verdict)

    async def _say(self, verdict: Verdict) -> None:
        # The broker vouches for the user, and edges believe no other.
        envelope = Envelope(Kind.VERDICT, "verdict", self._tap, user_id=topology.TAP, sent=int(time.time() * 1000))
        try:
            await self._publisher.publish(
                topology.EVENTS, topology.VERDICT_KEY, envelope, encode_verdict(verdict), timeout=TIMEOUT
            )
            self.told += 1
        except Disconnected as error:
            self.lost += 1
            log.info("tap.verdict_lost", client=verdict.client, error=str(error))
