"""A worker's leases of the partitions of one sticky pool, for the time of one connection.

A lease is an exclusive consumer on a partition's queue. The broker gives it to one at a time and ends it with the
connection, so nothing has to be renewed, and nobody can have two opinions about who has it. docs/decisions/0010.
"""

import asyncio
import contextlib
import random

import structlog

from rabbitbal.runtime.broker import LOSSES, Channel, Session, consumers, losses_named
from rabbitbal.wire import topology
from rabbitbal.wire.topology import PARTITIONS
from rabbitbal.worker import leases
from rabbitbal.worker.consumer import Consumer, Handle
from rabbitbal.worker.leases import Share
from rabbitbal.worker.settings import Membership
from rabbitbal.worker.slots import Slots

log = structlog.get_logger()


class Partitions:
    """`keep` takes and releases; `leave` ends it. A connection that is lost takes everything with it."""

    def __init__(self, session: Session, worker: str, membership: Membership, slots: Slots, handle: Handle) -> None:
        self._session = session
        self._worker = worker
        self._pool = membership.pool
        self._prefetch = membership.slots
        self._slots = slots
        self._handle = handle
        self._share = Share(worker)
        self._held: dict[int, Consumer] = {}
        self._looking: Channel | None = None
        self._members = 1
        self._leaving = asyncio.Event()

    @property
    def held(self) -> set[int]:
        return set(self._held)

    async def keep(self) -> None:
        """Look again and again, until `leave`, or cancelled because the connection is lost."""
        while not self._leaving.is_set():
            before = self.held
            try:
                with losses_named():
                    await self._look()
            except LOSSES as error:
                # Also where the queues were deleted, until they are back.
                log.warning("partitions.unseen", pool=self._pool, error=str(error) or type(error).__name__)
                self._looking = None
            except Exception:
                log.exception("worker.defect")
            if self.held != before:
                log.info("partitions.held", pool=self._pool, number=len(self._held), workers=self._members)
            pause = leases.period(self._members) * random.uniform(0.8, 1.2)  # noqa: S311
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), pause)
        for number in sorted(self._held):
            with contextlib.suppress(*LOSSES), losses_named():
                await self._release(number)

    def leave(self) -> None:
        """`keep` releases everything and ends. What waits for a slot goes to whoever takes the partitions."""
        self._leaving.set()

    async def _look(self) -> None:
        if self._looking is None:
            self._looking = await self._session.channel(lost=lambda why: None)
        self._members = await consumers(self._looking, topology.pool_queue(self._pool))
        for number in self._share.surplus(self._members, self.held):
            await self._release(number)
        if not self._share.wants_to_look(self.held):
            return
        free = set()
        for number in set(range(PARTITIONS)) - self.held:
            if self._leaving.is_set():
                return
            if not await consumers(self._looking, topology.partition_queue(self._pool, number)):
                free.add(number)
        for number in self._share.to_take(free, self.held):
            if self._leaving.is_set():
                return
            await self._take(number)

    async def _take(self, number: int) -> None:
        """Try to. Another may be faster; that costs the channel."""

        def lost(why: str) -> None:
            if self._held.get(number) is lease:
                del self._held[number]
                # All of them at once when the connection is lost, which has a line of its own.
                log.debug("partition.lost", pool=self._pool, partition=number, why=why)

        lease = Consumer(self._pool, self._handle, self._slots, lost)
        queue = topology.partition_queue(self._pool, number)
        tag = f"{self._worker}.{number}"
        try:
            await lease.start(self._session, queue, prefetch=self._prefetch, tag=tag, exclusive=True)
        except LOSSES as error:
            log.debug("partition.taken", pool=self._pool, partition=number, why=str(error))
        else:
            self._held[number] = lease

    async def _release(self, number: int) -> None:
        """What waits is for the next owner."""
        await self._held.pop(number).end(give_back=True)
