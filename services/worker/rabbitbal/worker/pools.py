"""A worker's part in its pools: joined, lost, joined again, left. Of one connection at a time."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import structlog

from rabbitbal.runtime.broker import LOSSES, Delivery, Session
from rabbitbal.wire import topology
from rabbitbal.worker.consumer import Consumer, Handle
from rabbitbal.worker.partitions import Partitions
from rabbitbal.worker.settings import Membership
from rabbitbal.worker.slots import Slots, Turn

log = structlog.get_logger()

RENEW_PERIOD = 1.0


class Pools:
    """A consumer for each pool, on a channel of its own: the channel's prefetch is the number of slots."""

    def __init__(self, worker: str, memberships: tuple[Membership, ...]) -> None:
        self._worker = worker
        self._memberships = memberships
        self._session: Session | None = None
        self._consuming: dict[str, Consumer] = {}
        self._partitions: dict[str, tuple[Partitions, asyncio.Task[None]]] = {}
        self._left: list[Consumer] = []
        self._chores: set[asyncio.Task[None]] = set()
        # Leaving and coming back take their turns.
        self._moving = asyncio.Lock()
        self.away = False
        """The worker is to be in no pool, whatever connection comes."""
        self.handle: Handle = _nobody

    @property
    def complete(self) -> bool:
        """All that is to be joined is."""
        return self.away or len(self._consuming) == len(self._memberships)

    async def join(self, session: Session) -> None:
        """All of them, by a new connection. Raises one of LOSSES."""
        async with self._moving:
            # One that was lost before all pools were joined.
            self.lost()
            self._session = session
            # The connection may come back while what runs is being finished; nothing new is taken then.
            for membership in () if self.away else self._memberships:
                await self._join(session, membership)

    async def leave(self) -> None:
        """On return the broker delivers nothing further. What was delivered is run, but what waits for a partition's
        slot is given back: its queue has a new owner soon."""
        async with self._moving:
            self.away = True
            self._left = [consumer for consumer in self._left if not consumer.done]
            while self._consuming:
                _, consumer = self._consuming.popitem()
                self._left.append(consumer)
                with contextlib.suppress(*LOSSES):
                    await consumer.end()
            tasks = [task for _, task in self._partitions.values()]
            for partitions, _ in self._partitions.values():
                partitions.leave()
            self._partitions.clear()
            if tasks:
                await asyncio.wait(tasks)

    async def come_back(self) -> None:
        """Undo `leave`, with the connection that there is; or with the next one."""
        async with self._moving:
            self.away = False
            if self._session is not None:
                for membership in self._memberships:
                    if membership.pool not in self._consuming:
                        await self._rejoin(self._session, membership, patient=False)

    def dismiss(self) -> None:
        """Behind `leave`: give back all that waits for a slot."""
        for consumer in self._left:
            consumer.give_back()

    def lost(self) -> None:
        """The connection is gone, and all consumers with it."""
        self._session = None
        self._consuming.clear()
        self._left.clear()
        for _, keeping in self._partitions.values():
            keeping.cancel()
        self._partitions.clear()
        for chore in self._chores:
            chore.cancel()

    async def _join(self, session: Session, membership: Membership) -> None:
        """Should the broker cancel the consumer (the queue was deleted), only this pool is joined again, when its queue
        is back; what runs for other pools goes on."""
        pool = membership.pool

        def lost(why: str) -> None:
            if self._consuming.get(pool) is consumer:
                del self._consuming[pool]
                self._stop_partitions(pool)
                log.warning("pool.lost", pool=pool, why=why)
                self._spawn(self._rejoin(session, membership))

        # Only who has partitions besides may be brought more than it has slots.
        sticky = await session.exists(topology.partition_queue(pool, 0))
        slots = Slots(membership.slots) if sticky else None
        consumer = Consumer(pool, self.handle, slots, lost)
        queue = topology.pool_queue(pool)
        await consumer.start(session, queue, prefetch=membership.slots, tag=self._worker, priority=membership.priority)
        if self.away or self._session is not session or pool in self._consuming:
            await consumer.end()
            return
        self._consuming[pool] = consumer
        log.info("pool.joined", pool=pool, slots=membership.slots, priority=membership.priority, sticky=sticky)
        if slots is not None:
            partitions = Partitions(session, self._worker, membership, slots, self.handle)
            self._partitions[pool] = partitions, asyncio.ensure_future(partitions.keep())

    def _stop_partitions(self, pool: str) -> None:
        """Who is not in a pool is not counted among those who share its partitions."""
        if pool in self._partitions:
            partitions, keeping = self._partitions.pop(pool)
            partitions.leave()
            self._remember(keeping)

    async def _rejoin(self, session: Session, membership: Membership, *, patient: bool = True) -> None:
        while membership.pool not in self._consuming and not self.away and self._session is session:
            try:
                await self._join(session, membership)
            except LOSSES as error:
                log.warning("pool.missing", pool=membership.pool, error=str(error))
                if not patient:
                    self._spawn(self._rejoin(session, membership))
                    return
                await asyncio.sleep(RENEW_PERIOD)

    def _spawn(self, chore: Coroutine[Any, Any, None]) -> None:
        self._remember(asyncio.ensure_future(chore))

    def _remember(self, task: "asyncio.Task[None]") -> None:
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


async def _nobody(delivery: Delivery, pool: str, turn: Turn | None) -> None:
    await delivery.requeue()
