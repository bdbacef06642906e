"""Copies whose answers nobody waits for. The tap compares them with the primary's."""

import asyncio
import hashlib
from dataclasses import replace
from random import random
from secrets import token_hex

import structlog

from rabbitbal.edge.copies.body import at_hand, once_more
from rabbitbal.edge.copies.group import Begin
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.ticket import Ending, Order, Ticket
from rabbitbal.edge.traces import copied
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
        self._sent = 0
        self._dropped = 0

    def stats(self) -> dict[str, object]:
        return {"sent": self._sent, "dropped": self._dropped, "pending": len(self._tasks)}

    async def run(self, order: Order, keys: tuple[str, ...], sample: float, begin: Begin) -> Ending:
        """Carry a request, and copies of a ``sample`` of requests (0 to 1) to all keys but the first."""
        others = keys[1:]
        if random() >= sample:  # noqa: S311 - a sample, not a secret
            return await self._pending.run(order, begin)
        # A body that is still coming is the primary's; to wait for it would cost the client time.
        if not at_hand(order.source) or len(self._tasks) + len(others) > MOST or not self._pending.roomy():
            self._dropped += len(others)
            return await self._pending.run(order, begin)
        primary = replace(order, leg=Leg.PRIMARY, group=token_hex(16), digested=True)

        def begun(ticket: Ticket) -> None:
            begin(ticket)
            if not ticket.settled:
                # What is made here runs behind the primary, which leaves in this turn of the loop.
                for key in others:
                    self._send(primary, key)

        return await self._pending.run(primary, begun)

    def _send(self, primary: Order, key: str) -> None:
        """A copy gets no grace: to wait for a pool or a broker is not worth it, and would be a load of its own."""
        source = once_more(primary.source)
        copy = replace(
            copied(primary), key=key, leg=Leg.SHADOW, source=source, persistent=False, route_grace=0.0, broker_grace=0.0
        )
        task = asyncio.get_running_loop().create_task(self._run(copy))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._sent += 1

    async def _run(self, order: Order) -> None:
        try:
            ending = await self._pending.run(order, lambda ticket: None)
            if ending.stream is not None:
                await self._read(ending, order.timeout)
        except Exception:
            log.exception("edge.defect", leg="shadow")

    async def _read(self, ending: Ending, limit: float) -> None:
        """To its end, for the digest of it, but no longer than ``limit`` seconds: a stream could go on for ever, and
        then there would soon be no room for other shadows."""
        assert ending.stream is not None  # noqa: S101 - the caller has looked
        reason: Reason | None = Reason.CLIENT_GONE
        digest, size = hashlib.sha256(), 0
        piece = ending.response.body
        try:
            async with asyncio.timeout(limit):
                while True:
                    digest.update(piece)
                    size += len(piece)
                    piece = await ending.stream.read()
                    if not piece:
                        break
            reason = None
        except TimeoutError:
            reason = Reason.WORKER_TIMEOUT
        except Broken as broken:
            reason = broken.reason or Reason.WORKER_LOST
        finally:
            self._pending.close(ending, reason, size, digest.hexdigest() if reason is None else None)
