"""A response whose body comes in pieces, on its way to the client."""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from rabbitbal.edge.pending import Pending
from rabbitbal.edge.protocol import CYCLE, EdgeProtocol, unframe
from rabbitbal.edge.ticket import Ending, Source, Ticket
from rabbitbal.edge.tunnel import Parting, Tunnel, TunnelBody
from rabbitbal.runtime.streams import Broken
from rabbitbal.wire.fields import Fields, content_length
from rabbitbal.wire.reasons import Reason

log = structlog.get_logger()

# Seconds that an application gets to notice that its WebSocket is gone, and to clean up, before it is cancelled.
FAREWELL = 10.0
# Seconds for the end of a stream whose client has all that was declared.
AFTERMATH = 10.0
# Seconds that a client and its application get to close a WebSocket when the edge leaves.
PATIENCE = 5.0

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Relay:
    """Passes pieces on as they come, one at a time: the client's pace is the worker's credit."""

    def __init__(self, pending: Pending, ending: Ending, connection: EdgeProtocol) -> None:
        assert ending.stream is not None  # noqa: S101 - the caller has looked
        self._pending = pending
        self._ending = ending
        self._connection = connection
        self._ticket: Ticket = ending.stream
        self._size = 0
        self._digest = hashlib.sha256() if self._ticket.order.digested else None

    async def run(self, scope: dict[str, Any], send: Send, fields: Fields, source: Source | None) -> None:
        """Until the body's end, or the first thing that goes wrong: then the client's connection is broken."""
        reason: Reason | None = Reason.EDGE_ERROR
        try:
            if self._ending.response.status == 101 and isinstance(source, TunnelBody):
                await self._tunnel(fields, source)
            else:
                await self._respond(scope, send, fields)
            reason = None
        except Broken as broken:
            reason = broken.reason or Reason.WORKER_LOST
            log.info("response.broken", id=self._ticket.envelope.correlation_id, why=str(broken))
        except Exception:
            # The client has its ending already.
            log.exception("edge.defect", id=self._ticket.envelope.correlation_id)
        finally:
            digest = self._digest.hexdigest() if self._digest is not None else None
            self._pending.close(self._ending, reason, self._size, digest)

    async def _respond(self, scope: dict[str, Any], send: Send, fields: Fields) -> None:
        connection, cycle = self._connection, scope[CYCLE]
        response = self._ending.response
        declared = content_length(response.fields)
        unframed = declared is None and scope["http_version"] == "1.0"
        # uvicorn swallows what it is given for a client that has left.
        connection.gone = self._ticket.client_left
        try:
            if connection.transport.is_closing():
                raise Broken("the client left", Reason.CLIENT_GONE)
            if unframed:
                unframe(cycle)
                fields = [*fields, (b"connection", b"close")]
            await send({"type": "http.response.start", "status": response.status, "headers": fields})
            await self._body(send, declared)
            if unframed:
                connection.hang_up(cycle, whole=True)
            else:
                await send({"type": "http.response.body", "body": b""})
        except BaseException:
            connection.hang_up(cycle, whole=False)
            raise
        finally:
            connection.gone = None
        if declared is not None:
            await self._aftermath()

    async def _body(self, send: Send, declared: int | None) -> None:
        """Up to its end, or to the declared length: then the client has all of it, may leave, or send its next request
        at once, whatever the worker has still to say."""
        piece = self._ending.response.body
        while True:
            if piece:
                self._size += len(piece)
                if self._digest is not None:
                    self._digest.update(piece)
                if declared is not None and self._size > declared:
                    raise Broken("the body is longer than declared", Reason.BAD_RESPONSE)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if self._size == declared:
                return
            piece = await self._ticket.read()
            if not piece:
                break
        if declared is not None:
            raise Broken("the body is shorter than declared", Reason.BAD_RESPONSE)
        if self._connection.transport.is_closing():
            raise Broken("the client left", Reason.CLIENT_GONE)

    async def _aftermath(self) -> None:
        """The worker says that it was all; one that says something else breaks nothing any more. One that says nothing
        is cancelled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AFTERMATH):
                if await self._ticket.read():
                    raise Broken("the body is longer than declared", Reason.BAD_RESPONSE)

    async def _tunnel(self, fields: Fields, source: TunnelBody) -> None:
        if self._connection.transport.is_closing():
            raise Broken("the client left", Reason.CLIENT_GONE)
        hop = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        tunnel: Tunnel = self._connection.switch([*hop, *fields])
        # The worker hears of it by the end of what the client sends, and ends the stream by itself.
        loop = asyncio.get_running_loop()
        tunnel.gone = lambda: loop.call_later(FAREWELL, self._ticket.client_left)
        source.attach(tunnel)
        parting = Parting(tunnel, lambda: loop.call_later(PATIENCE, self._ticket.client_left))
        tunnel.leave = parting.begin
        try:
            piece = self._ending.response.body
            while True:
                if piece:
                    self._size += len(piece)
                    await parting.write(piece)
                piece = await self._ticket.read()
                if not piece:
                    break
        finally:
            tunnel.gone = lambda: None
            tunnel.close()
