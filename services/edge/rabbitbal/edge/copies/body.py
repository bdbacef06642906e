"""A body in pieces that several copies read: it comes once, and each has it from its start."""

import asyncio
from collections.abc import AsyncIterator

from rabbitbal.edge.spool import Spool
from rabbitbal.edge.ticket import Source
from rabbitbal.edge.upload import BodyTooLarge, ClientGone
from rabbitbal.wire.flow import CHUNK


class SharedBody:
    """Fills ``spool`` from ``source`` as soon as one copy reads. What the spool has no room for is too large."""

    def __init__(self, source: Source, spool: Spool) -> None:
        self._source = source
        self._spool = spool
        self._readers = 0
        self._filler: asyncio.Task[None] | None = None
        self._ended = False
        self._error: type[Exception] | None = None
        self._news = asyncio.Event()

    def reader(self) -> "Reader":
        self._readers += 1
        return Reader(self)

    async def pieces(self) -> AsyncIterator[bytes]:
        """From the start. Raises ClientGone and BodyTooLarge."""
        if self._filler is None:
            self._filler = asyncio.get_running_loop().create_task(self._fill())
        position = 0
        while True:
            if self._error is not None:
                raise self._error
            if position < self._spool.size:
                piece = self._spool.read(position, CHUNK)
                position += len(piece)
                yield piece
            elif self._ended:
                return
            else:
                await self._news.wait()

    def close(self) -> None:
        """One reader needs it no more."""
        self._readers -= 1
        if self._readers == 0:
            if self._filler is not None:
                self._filler.cancel()
            self._spool.close()
            self._source.close()

    async def _fill(self) -> None:
        try:
            async for piece in self._source.pieces():
                self._spool.append(piece)
                if not self._spool.whole:
                    self._error = BodyTooLarge
                    return
                self._tell()
            self._ended = True
        except (ClientGone, BodyTooLarge) as error:
            self._error = type(error)
        finally:
            self._tell()

    def _tell(self) -> None:
        # Whoever waits now is woken, and later ones wait for the next.
        self._news.set()
        self._news = asyncio.Event()


class Reader:
    """A copy's own view."""

    repeatable = True

    def __init__(self, body: SharedBody) -> None:
        self._body = body
        self._closed = False

    def pieces(self) -> AsyncIterator[bytes]:
        return self._body.pieces()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._body.close()
