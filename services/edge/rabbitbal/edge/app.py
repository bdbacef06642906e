"""The data path: from an ASGI request to an ASGI response. Raw ASGI, as a framework would cost more than the work."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import structlog

from rabbitbal.edge.copies import Copies
from rabbitbal.edge.copies.group import Departure
from rabbitbal.edge.forwarding import response_fields
from rabbitbal.edge.intake import Accepted, Intake
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.protocol import CONNECTION, CYCLE, RESERVED, TARGET, EdgeProtocol
from rabbitbal.edge.reading import Refused
from rabbitbal.edge.relay import Relay
from rabbitbal.edge.settings import Settings
from rabbitbal.edge.spool import SpoolSpace
from rabbitbal.edge.sticky import cookies_for
from rabbitbal.edge.suspects import Suspects
from rabbitbal.edge.ticket import Ending
from rabbitbal.edge.upload import ClientGone
from rabbitbal.routes.watch import RoutesFile
from rabbitbal.wire.fields import Fields, first
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import ERROR_FIELD, Reason

log = structlog.get_logger()

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_UNFIT = re.compile(rb"[^\x21-\x7e]")


class Edge:
    """The ASGI application."""

    def __init__(
        self,
        settings: Settings,
        pending: Pending,
        routes: RoutesFile,
        copies: Copies,
        spools: SpoolSpace,
        suspects: Suspects,
        admin: App,
    ) -> None:
        self._settings = settings
        self._pending = pending
        self._copies = copies
        self._admin = admin
        self._intake = Intake(settings, pending, routes, spools, suspects)
        self._date = (0, b"")
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"unexpected scope {scope['type']}")
        if scope[TARGET].startswith(RESERVED):
            await self._admin(scope, receive, send)
            return
        connection: EdgeProtocol = scope[CONNECTION]
        try:
            accepted = await self._intake.accept(scope, receive)
            ending = await self._carry(accepted, connection)
            if ending.stream is not None:
                fields = response_fields(ending.response.fields, self._now()) + self._added(accepted, ending)
                await Relay(self._pending, ending, connection).run(scope, send, fields, accepted.order.source)
            elif ending.reason is not Reason.CLIENT_GONE:
                # What is behind the limit is not read.
                close = self.draining or ending.reason is Reason.BODY_TOO_LARGE
                await self._answer(scope, send, ending.response, self._added(accepted, ending), close=close)
        except ClientGone:
            # Before it had sent its request whole; nobody has seen it.
            pass
        except Refused as refused:
            log.info("request.refused", reason=refused.reason.value, target=_printable(scope))
            await self._refuse(scope, send, refused.reason, refused.retry_after)
        except Exception:
            log.exception("edge.defect", target=_printable(scope))
            await self._refuse(scope, send, Reason.EDGE_ERROR)

    async def _carry(self, accepted: Accepted, connection: EdgeProtocol) -> Ending:
        def begin(departure: Departure) -> None:
            connection.gone = departure.client_left
            if connection.transport.is_closing():
                departure.client_left()

        try:
            return await self._copies.run(accepted.order, accepted.route, accepted.keys, begin)
        finally:
            connection.gone = None

    def _added(self, accepted: Accepted, ending: Ending) -> Fields:
        """The fields of ours that an answer brings."""
        fields = [] if ending.reason is None else [(ERROR_FIELD.lower(), ending.reason.value.encode())]
        fields += ending.fields
        if accepted.cookie is not None and (ending.reason is None or ending.worker is not None):
            # A client that no worker has answered is of no session yet.
            fields += cookies_for(ending.response.fields, accepted.cookie)
        if self._settings.expose_worker:
            fields += _exposed(accepted, ending)
        return fields

    async def _refuse(self, scope: Scope, send: Send, reason: Reason, retry_after: int | None = None) -> None:
        """An answer given before the request was read to its end: the connection cannot be used again."""
        extra = [(ERROR_FIELD.lower(), reason.value.encode())]
        response = self._pending.refuse(reason, self._intake.head(scope), retry_after)
        await self._answer(scope, send, response, extra, close=True)

    async def _answer(self, scope: Scope, send: Send, response: Response, extra: Fields, *, close: bool) -> None:
        status, body = response.status, response.body
        fields = response_fields(response.fields, self._now()) + extra
        if status in (204, 304):
            # RFC 9110 §8.6: no Content-Length in a 204. In a 304 it is optional, and uvicorn wants what is declared.
            fields, body = [field for field in fields if field[0].lower() != b"content-length"], b""
        elif scope["method"] == "HEAD":
            body = b""
        elif first(fields, b"content-length") is None:
            fields.append((b"content-length", b"%d" % len(body)))
        if close:
            fields.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        connection, cycle = scope[CONNECTION], scope[CYCLE]
        unread = close and cycle.more_body
        if unread:
            connection.take_no_more()
            # Or uvicorn would close at once.
            cycle.keep_alive = True
        await send({"type": "http.response.body", "body": body})
        if unread:
            connection.farewell()

    def _now(self) -> bytes:
        """The Date field, made once a second."""
        second = int(asyncio.get_running_loop().time())
        if self._date[0] != second:
            self._date = (second, formatdate(usegmt=True).encode())
        return self._date[1]


def _exposed(accepted: Accepted, ending: Ending) -> Fields:
    """Who made the answer, for those who look for it."""
    fields = [(b"rabbitbal-route", _fit(accepted.route.name))]
    if ending.pool is not None:
        fields.append((b"rabbitbal-pool", _fit(ending.pool)))
    if ending.worker is None:
        return fields
    app = ending.app or 0.0
    timing = f"queue;dur={max(ending.total - app, 0) * 1000:.2f}, app;dur={app * 1000:.2f}"
    return [
        *fields,
        (b"rabbitbal-worker", _fit(ending.worker)),
        (b"rabbitbal-attempt", b"%d" % ending.attempt),
        (b"server-timing", timing.encode()),
    ]


def _fit(text: str) -> bytes:
    """A name that a worker gave, as a field's value: no more than the value, whatever it holds."""
    return _UNFIT.sub(b"?", text[:200].encode("ascii", "replace"))


def _printable(scope: Scope) -> str:
    target: bytes = scope.get(TARGET, b"")
    return target[:200].decode("latin-1")
