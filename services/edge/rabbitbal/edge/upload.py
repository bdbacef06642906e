"""A request body that is sent on while it comes in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from rabbitbal.edge.spool import Spool
from rabbitbal.wire.flow import CHUNK, INLINE
from rabbitbal.wire.reasons import Reason

Receive = Callable[[], Awaitable[dict[str, Any]]]

# Seconds that the rest of a body of unknown length gets to arrive, and travel inline, before its head goes on alone.
PATIENCE = 0.05


class ClientGone(Exception):
    """The client left before it had sent its body whole."""


class BodyTooLarge(Exception):
    """There is more body than the limit allows."""

    reason = Reason.BODY_TOO_LARGE


class NoRoom(Exception):
    """There is no place to keep the body, which several workers need."""

    reason = Reason.OVERLOADED


class Upload:
    """``begin`` gives what travels with the head; ``pieces`` all that follows, as often as it can be had.

    The head goes on with the first bytes: a body of declared length that fits inline is waited for, and one that does
    not is not.
    """

    def __init__(self, receive: Receive, declared: int | None, limit: int) -> None:
        self._receive = receive
        self._declared = declared
        self._limit = limit
        self._size = 0
        self._ended = False
        self._rest = b""
        self._spool: Spool | None = None
        self._closed = False

    @property
    def repeatable(self) -> bool:
        return self._spool is not None and self._spool.whole

    @property
    def kept(self) -> "Spool | None":
        """All that follows the first bytes, where it has come and is kept whole."""
        return self._spool if self._ended and not self._closed and self.repeatable else None

    async def begin(self, hold: Callable[[int], None]) -> tuple[bytes, bool]:
        """The first bytes, at most INLINE, and whether more follow. Raises ClientGone, BodyTooLarge, and what ``hold``
        raises, which is told the size of each part."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(PATIENCE if self._declared is None else None):
                while not self._ended and size < INLINE:
                    part = await self._next()
                    hold(len(part))
                    size += len(part)
                    parts.append(part)
                    if self._declared is not None and self._declared > INLINE and size:
                        break
        except TimeoutError:
            pass
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._rest = body[INLINE:]
        return body[:INLINE], bool(self._rest) or not self._ended

    def keep(self, spool: Spool) -> None:
        """From now on what comes in is kept."""
        self._spool = spool
        spool.append(self._rest)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All behind the first bytes, from their start. Raises ClientGone and BodyTooLarge."""
        position = 0
        while self._spool is not None and self._spool.whole and position < self._spool.size:
            piece = self._spool.read(position, CHUNK)
            position += len(piece)
            yield piece
        if position == 0 and self._rest:
            yield self._rest
        self._rest = b""
        while not self._ended:
            piece = await self._next()
            if piece:
                if self._spool is not None:
                    self._spool.append(piece)
                yield piece

    def close(self) -> None:
        self._ended = True
        if not self._closed and self._spool is not None:
            self._spool.close()
        self._closed = True

    async def _next(self) -> bytes:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = event.get("body", b"")
        self._size += len(part)
        if self._size > self._limit:
            raise BodyTooLarge
        self._ended = not event.get("more_body", False)
        return part
