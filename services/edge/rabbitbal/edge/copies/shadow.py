"""Copies whose answers nobody waits for. The tap compares them with the primary's."""

import asyncio
import hashlib
from dataclasses import replace
from random import random

import structlog

from rabbitbal.edge.pending import Pending
from rabbitbal.edge.ticket import Ending, Order
from rabbitbal.runtime.streams import Broken
from rabbitbal.wire.envelope import Leg
from rabbitbal.wire.reasons import Reason

log = structlog.get_logger()

MOST = 256


class Shadows:
    """Bounded, and the first to go without when there is little room."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def wanted(self, order: Order, sample: float, copies: int) -> bool:
        """Whether this request is one of the sample, and can be copied."""
        if random() >= sample:  # noqa: S311 - a sample, not a secret
            return False
        # A body that comes in pieces is the primary's; to wait for it would cost the client time.
        if order.source is not None or len(self._tasks) + copies > MOST or not self._pending.roomy():
            self.dropped += copies
            return False
        return True

    def send(self, order: Order, keys: tuple[str, ...], group: str) -> None:
        """``order`` is the primary's. On the way when the primary is."""
        for key in keys:
            copy = replace(order, key=key, leg=Leg.SHADOW, group=group, reserve=0, partition=None, persistent=False)
            task = asyncio.get_running_loop().create_task(self._run(copy))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self.sent += 1

    async def _run(self, order: Order) -> None:
        try:
            ending = await self._pending.run(order, lambda ticket: None)
            if ending.stream is not None:
                await self._read(ending)
        except Exception:
            log.exception("edge.defect", leg="shadow")

    async def _read(self, ending: Ending) -> None:
        """To its end, for the digest of it."""
        assert ending.stream is not None  # noqa: S101 - the caller has looked
        reason: Reason | None = Reason.EDGE_ERROR
        digest, size = hashlib.sha256(), 0
        piece = ending.response.body
        try:
            while True:
                digest.update(piece)
                size += len(piece)
                piece = await ending.stream.read()
                if not piece:
                    break
            reason = None
        except Broken as broken:
            reason = broken.reason or Reason.WORKER_LOST
        finally:
            self._pending.close(ending, reason, size, digest.hexdigest())
