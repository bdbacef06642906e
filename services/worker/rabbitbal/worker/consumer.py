"""One consumer on a channel of its own, and what it has brought."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from rabbitbal.runtime.broker import LOSSES, Channel, Delivery, Session, consume, losses_named
from rabbitbal.worker.slots import Intake, Slots, Turn

Handle = Callable[[Delivery, str, Turn | None], Awaitable[None]]


class Consumer:
    """``handle`` gets each delivery, the pool's name, and a turn where slots are shared. ``lost`` hears once that the
    broker ended it. Its channel is closed when it is over and all that came is done, and not before: the library
    cancels what came over a channel that is closed."""

    def __init__(self, pool: str, handle: Handle, slots: Slots | None, lost: Callable[[str], None]) -> None:
        self._pool = pool
        self._handle = handle
        self._intake = None if slots is None else Intake(slots)
        self._lost = lost
        self._channel: Channel | None = None
        self._cancel: Callable[[], Awaitable[None]] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._in_hand = 0
        self._over = False

    @property
    def done(self) -> bool:
        """It brings nothing more, and what it brought is done."""
        return self._over and not self._in_hand

    async def start(
        self, session: Session, queue: str, *, prefetch: int, tag: str, priority: int = 0, exclusive: bool = False
    ) -> None:
        """Confirmed by the broker on return. Raises one of LOSSES."""
        self._channel = await session.channel(prefetch=prefetch, lost=self._ended)
        self._cancel = await consume(
            self._channel, queue, self._received, tag=tag, priority=priority, exclusive=exclusive
        )
        if self._over:
            raise ConnectionResetError("the consumer was ended as soon as it was there")

    async def end(self, *, give_back: bool = False) -> None:
        """On return the broker delivers nothing further. What was started is finished; with ``give_back`` what waits
        for a slot goes back. Raises one of LOSSES."""
        self._over = True
        if self._cancel is not None:
            await self._cancel()
        if give_back:
            self.give_back()
        await self._close_when_done()

    def give_back(self) -> None:
        """What waits for a slot. Not before the broker delivers nothing more: it would bring it here again."""
        if self._intake is not None:
            self._intake.close()

    def _ended(self, why: str) -> None:
        # A channel may tell of its end twice.
        if not self._over:
            self._over = True
            self._closing = asyncio.ensure_future(self._close_when_done())
            if self._cancel is not None:
                self._lost(why)

    async def _received(self, delivery: Delivery) -> None:
        self._in_hand += 1
        try:
            if self._intake is None:
                await self._handle(delivery, self._pool, None)
            else:
                turn = Turn(self._intake)
                delivery.settling = turn.free
                try:
                    await self._handle(delivery, self._pool, turn)
                finally:
                    turn.free()
        finally:
            self._in_hand -= 1
            await self._close_when_done()

    async def _close_when_done(self) -> None:
        if self.done and self._channel is not None:
            with contextlib.suppress(*LOSSES), losses_named():
                await self._channel.close()
