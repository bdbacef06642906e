"""Reads the tap's queue in batches: each is seen, kept where it is to be kept, and acknowledged as one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from rabbitbal.runtime.broker import Delivery, Session, consume
from rabbitbal.tap.observation import Observation, Part, observe
from rabbitbal.wire import topology
from rabbitbal.wire.errors import WireError

log = structlog.get_logger()

# Seconds that the first message of a batch waits for others: what the page shows is so old, and a tap that dies
# reads so much a second time.
LINGER = 0.1


async def nothing_to_keep() -> None:
    """For a tap without a ledger."""


class Reader:
    """``parts`` see each message, one after the other. What they want to have kept `keep` writes down; only when it
    returns are the messages acknowledged, so those that are not kept are read again by the next tap."""

    def __init__(
        self, parts: Sequence[Part], prefetch: int, keep: Callable[[], Awaitable[None]] = nothing_to_keep
    ) -> None:
        self._parts = parts
        self._prefetch = prefetch
        self._keep = keep
        self._newest: Delivery | None = None
        self._came = asyncio.Event()
        self.seen = 0
        self.bad = 0
        """Messages that made no sense."""
        self.defects = 0
        """Times that a part failed at a message: each is a defect of the tap, and in its log."""

    async def consume(self, session: Session) -> None:
        """Begin with a new connection. What the one before has brought and not acknowledged comes again."""
        self._newest = None
        channel = await session.channel(prefetch=self._prefetch)
        await consume(channel, topology.TAP_LOG, self._received)

    async def run(self) -> None:
        """Acknowledge what was seen, batch by batch, until cancelled."""
        while True:
            await self._came.wait()
            await asyncio.sleep(LINGER)
            await self.settle()

    async def settle(self) -> None:
        """Keep and acknowledge all that was seen until now."""
        newest, self._newest = self._newest, None
        self._came.clear()
        await self._keep()
        if newest is not None:
            await newest.ack_all()

    async def _received(self, delivery: Delivery) -> None:
        # No wait before this: messages are seen in their order, and an acknowledgement covers what was seen.
        self._newest = delivery
        self._came.set()
        self.seen += 1
        try:
            envelope = delivery.envelope()
        except WireError as error:
            self._refuse(str(error))
            return
        seen = observe(
            time.time(),
            envelope,
            delivery.body,
            delivery.user_id,
            redelivered=delivery.redelivered,
            key=delivery.key,
        )
        if seen.error is not None:
            self._refuse(seen.error)
        self._show(seen)

    def _refuse(self, error: str) -> None:
        self.bad += 1
        log.warning("tap.bad_message", error=error)

    def _show(self, seen: Observation) -> None:
        for part in self._parts:
            try:
                part.see(seen)
            except Exception:
                # One part's defect must not silence the others.
                self.defects += 1
                log.exception("tap.defect", part=type(part).__name__, kind=seen.envelope.kind.value)
