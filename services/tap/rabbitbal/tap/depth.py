"""How many requests wait in each pool, asked of the broker once a second.

The tap may not read the broker's API. But to declare a queue passively takes no permission, and the answer has the
number of messages that are ready. It is asked on a connection of its own: the broker closes a channel on which a queue
was asked for that does not exist, and neither that nor a slow answer may disturb what is read.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable

import structlog

from rabbitbal.runtime.broker import LOSSES, Channel, Link, Missing, Server, Session, losses_named, waiting
from rabbitbal.runtime.settings import SettingsError
from rabbitbal.wire import topology

log = structlog.get_logger()

PERIOD = 1.0
# Seconds for all of one round. A broker that takes longer is one whose answers are old.
PATIENCE = 10.0
# Seconds after which a queue is looked for again that was not there.
ABSENCE = 30.0
# Workers may name any pool; so many are asked for.
MOST_POOLS = 200

_DECLARED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})(:sticky)?")


def declared(text: str) -> dict[str, bool]:
    """The pools of `RABBITBAL_POOLS_DECLARED`, and whether each is sticky. Raises SettingsError.

    The job `topology` reads the same variable, and has refused what is refused here.
    """
    pools: dict[str, bool] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        match = _DECLARED.fullmatch(part)
        if match is None or match[1] in pools:
            raise SettingsError(f"RABBITBAL_POOLS_DECLARED: {part[:80]!r} is no pool, or is named twice")
        pools[match[1]] = match[2] is not None
    return pools


class Depths:
    """``pools`` are those that are known from the start, and whether each is sticky; ``named`` gives the names of those
    that workers say they are in."""

    def __init__(self, server: Server, name: str, pools: dict[str, bool], named: Callable[[], Iterable[str]]) -> None:
        self._pools = pools
        self._named = named
        self._link = Link(f"{name} asks", server, self._begin, self._lost)
        self._session: Session | None = None
        self._channel: Channel | None = None
        self._absent: dict[str, float] = {}
        """Queues that were not there, and when they were looked for."""
        self.ready: dict[str, int] = {}
        """Requests that wait, by pool; of a sticky one those in its partitions, too. Empty while none can be asked."""
        self.log: int | None = None
        """Messages that wait for the tap itself."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._link.run())
            group.create_task(self._ask_again())

    async def _begin(self, session: Session) -> None:
        self._session, self._channel = session, None

    def _lost(self) -> None:
        self._session = self._channel = None
        self.ready, self.log = {}, None

    async def _ask_again(self) -> None:
        while True:
            await self._link.up.wait()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._round()
            except LOSSES as error:
                # The link tells of a lost connection. What is known is not what is so any longer.
                log.debug("depth.unknown", error=str(error) or type(error).__name__)
                self._channel = None
                self.ready, self.log = {}, None
            await asyncio.sleep(PERIOD)

    async def _round(self) -> None:
        ready: dict[str, int] = {}
        for pool, sticky in self._asked().items():
            found = await self._ask(topology.pool_queue(pool))
            for number in range(topology.PARTITIONS if sticky else 0):
                more = await self._ask(topology.partition_queue(pool, number))
                found = None if found is None and more is None else (found or 0) + (more or 0)
            if found is not None:
                ready[pool] = found
        self.log = await self._ask(topology.TAP_LOG)
        self.ready = ready

    def _asked(self) -> dict[str, bool]:
        asked = dict(self._pools)
        for name in sorted(self._named()):
            if len(asked) >= MOST_POOLS:
                break
            asked.setdefault(name, False)
        return asked

    async def _ask(self, queue: str) -> int | None:
        """None where there is no such queue, or was none a while ago. Raises one of LOSSES."""
        now = time.monotonic()
        if now - self._absent.get(queue, -ABSENCE) < ABSENCE:
            return None
        if self._session is None:
            raise ConnectionResetError("the connection is lost")
        if self._channel is None or self._channel.is_closed:
            with losses_named():
                self._channel = await self._session.channel(lost=lambda why: None)
        try:
            with losses_named():
                found = await waiting(self._channel, queue)
        except Missing:
            log.debug("depth.no_queue", queue=queue)
            self._remember_absent(queue, now)
            return None
        self._absent.pop(queue, None)
        return found

    def _remember_absent(self, queue: str, now: float) -> None:
        self._channel = None
        self._absent = {name: at for name, at in self._absent.items() if now - at < ABSENCE}
        self._absent[queue] = now
