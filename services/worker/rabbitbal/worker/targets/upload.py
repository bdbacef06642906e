"""The body of a request on its way to the upstream."""

import asyncio
from contextlib import suppress

from rabbitbal.wire.fields import Fields, content_length
from rabbitbal.wire.message import Request
from rabbitbal.worker.targets.connection import Connection
from rabbitbal.worker.targets.contract import Body
from rabbitbal.worker.targets.network import Lost
from rabbitbal.worker.targets.pairing import end


class Upload:
    """``opening`` is what is here before the head is sent; ``whole``: nothing follows, so it can be sent again."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._next: asyncio.Task[bytes] | None = None
        self.opening = b""
        self.whole = True
        self.length: int | None = None
        """As the upstream is told. None: there is no body, or it is sent in chunks."""

    @classmethod
    async def of(cls, request: Request, body: Body) -> "Upload":
        """Reads what is here already."""
        upload = cls(body)
        if request.upgrade is not None:
            return upload  # what follows is no body
        upload.length = content_length(request.fields)
        try:
            if upload.length is None:
                await upload._look()
            else:
                upload.opening = await body.read() if request.body else b""
                upload.whole = upload.length == len(upload.opening)
        except BaseException:
            await upload.close()
            raise
        return upload

    def fields(self) -> Fields:
        """What tells the upstream how the body ends."""
        if self.length is not None:
            return [(b"Content-Length", b"%d" % self.length)]
        return [] if self.whole else [(b"Transfer-Encoding", b"chunked")]

    async def send(self, connection: Connection, rest: bytes) -> None:
        """Send ``rest`` and the remaining body. Raises what reading the body raises; h11.LocalProtocolError where it is
        not as long as declared.

        That the connection takes no more is no failure: what comes back tells. A client is to listen for an early
        response while it sends, and to stop sending then (RFC 9112 §9.5).
        """
        with suppress(Lost):
            await connection.wire.send(rest)
            if self.whole:
                return
            size = len(self.opening)
            # Nothing behind the declared length is waited for.
            while size != self.length and (piece := await self._read()):
                size += len(piece)
                await connection.wire.send(connection.piece(piece))
            await connection.wire.send(connection.end())

    async def close(self) -> None:
        """Whatever is still being read is not wanted."""
        if self._next is not None:
            await end(self._next)

    async def _look(self) -> None:
        """Nothing tells whether there is a body but the body. The head must not wait for a piece that comes late: the
        client may wait for an answer to the head."""
        first = await self._peek()
        self.whole = first == b""
        if not first:
            return
        self._next, self.opening = None, first
        self.whole = await self._peek() == b""
        if self.whole:
            self.length = len(first)

    async def _peek(self) -> bytes | None:
        """The next piece, which stays the next one; None where it is not here yet."""
        self._next = asyncio.create_task(self._body.read())
        await asyncio.sleep(0)  # one turn of the loop, in which the task runs as far as it can
        return self._next.result() if self._next.done() else None

    async def _read(self) -> bytes:
        if self._next is None:
            return await self._body.read()
        piece, self._next = await self._next, None
        return piece
