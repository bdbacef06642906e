"""A body in pieces that several copies read: it comes once, and each has it from its start."""

import asyncio
from collections.abc import AsyncIterator, Callable

import structlog

from rabbitbal.edge.spool import Spool
from rabbitbal.edge.ticket import Source
from rabbitbal.edge.upload import BodyTooLarge, ClientGone, NoRoom, Upload
from rabbitbal.wire.flow import CHUNK
from rabbitbal.wire.reasons import Reason

log = structlog.get_logger()


class SharedBody:
    """Fills ``spool`` from ``source`` as soon as one copy reads, at the client's pace: a slow or dead reader holds up
    nobody. ``failed`` hears why there will be no whole body; copies that wait for their worker hear it from there.
    """

    def __init__(self, source: Source, spool: Spool, failed: Callable[[Reason], None]) -> None:
        self._source = source
        self._spool = spool
        self._failed = failed
        self._readers = 0
        self._filler: asyncio.Task[None] | None = None
        self._ended = False
        self._error: Exception | None = None
        self._news = asyncio.Event()

    def reader(self) -> "Reader":
        self._readers += 1
        return Reader(self)

    async def pieces(self) -> AsyncIterator[bytes]:
        """From the start. Raises ClientGone, BodyTooLarge and NoRoom."""
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
                    raise BodyTooLarge if self._spool.too_large else NoRoom
                self._tell()
            self._ended = True
        except ClientGone as error:
            self._fail(error, Reason.CLIENT_GONE)
        except (BodyTooLarge, NoRoom) as error:
            self._fail(error, error.reason)
        except Exception as error:
            log.exception("edge.upload_failed")
            self._fail(error, Reason.EDGE_ERROR)
        self._tell()

    def _fail(self, error: Exception, reason: Reason) -> None:
        self._error = error
        self._failed(reason)

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


class Kept:
    """A body that is here already, once more."""

    repeatable = True

    def __init__(self, spool: Spool) -> None:
        spool.share()
        self._spool = spool
        self._closed = False

    async def pieces(self) -> AsyncIterator[bytes]:
        position = 0
        while position < self._spool.size:
            piece = self._spool.read(position, CHUNK)
            position += len(piece)
            yield piece

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._spool.close()


def at_hand(source: Source | None) -> bool:
    """Nobody would have to wait for a second one."""
    return source is None or (isinstance(source, Upload) and source.kept is not None)


def once_more(source: Source | None) -> Source | None:
    """A second one of what is `at_hand`."""
    spool = source.kept if isinstance(source, Upload) else None
    return None if spool is None else Kept(spool)
