"""The data path: from an ASGI request to an ASGI response. Raw ASGI, as a framework would cost more than the work."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import structlog

from rabbitbal.edge.forwarding import Peer, TrustedProxies, request_fields, response_fields
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.protocol import CONNECTION, CYCLE, RESERVED, TARGET, UPGRADE, EdgeProtocol
from rabbitbal.edge.relay import Relay
from rabbitbal.edge.settings import Settings
from rabbitbal.edge.spool import Spool, SpoolSpace
from rabbitbal.edge.ticket import Ending, Order, Ticket
from rabbitbal.edge.tunnel import TunnelBody
from rabbitbal.edge.upload import BodyTooLarge, ClientGone, Upload
from rabbitbal.wire import topology
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Fields, content_length, first, values
from rabbitbal.wire.flow import WINDOW
from rabbitbal.wire.message import Request, Response, encode_request, without_body
from rabbitbal.wire.reasons import ERROR_FIELD, Reason

log = structlog.get_logger()

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# RFC 9110 §9.2.2: "Of the request methods defined by this specification, PUT, DELETE, and safe request methods are
# idempotent." Safe: GET, HEAD, OPTIONS, TRACE (§9.2.1).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://([^/?#]*)([^#]*)")


class Refused(Exception):
    """The request ends here, before it was published."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Edge:
    """The ASGI application."""

    def __init__(self, settings: Settings, pending: Pending, admin: App) -> None:
        self._settings = settings
        self._pending = pending
        self._admin = admin
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._spools = SpoolSpace(settings.spool_total, settings.spool_limit, settings.spool_dir)
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
            order = await self._order(scope, receive)
            ending = await self._carry(order, connection)
            if ending.stream is not None:
                fields = response_fields(ending.response.fields, self._now()) + self._exposed(ending)
                await Relay(self._pending, ending, connection).run(scope, send, fields, order.source)
            elif ending.reason is not Reason.CLIENT_GONE:
                # What is behind the limit is not read.
                close = self.draining or ending.reason is Reason.BODY_TOO_LARGE
                await self._answer(scope, send, ending.response, self._exposed(ending), close=close)
        except ClientGone:
            # Before it had sent its request whole; nobody has seen it.
            pass
        except Refused as refused:
            log.info("request.refused", reason=refused.reason.value, target=_printable(scope))
            await self._refuse(scope, send, refused.reason)
        except Exception:
            log.exception("edge.defect", target=_printable(scope))
            await self._refuse(scope, send, Reason.EDGE_ERROR)

    async def _carry(self, order: Order, connection: EdgeProtocol) -> Ending:
        def begin(ticket: Ticket) -> None:
            connection.gone = ticket.client_left
            if connection.transport.is_closing():
                ticket.client_left()

        try:
            return await self._pending.run(order, begin)
        finally:
            connection.gone = None

    async def _order(self, scope: Scope, receive: Receive) -> Order:
        """The request, as soon as it can be published. Raises Refused and ClientGone."""
        target, fields = _target(scope)
        upgrade: str | None = scope[UPGRADE]
        source: Upload | TunnelBody | None
        if upgrade is not None:
            body, more, source = b"", True, TunnelBody()
        else:
            source = Upload(receive, self._declared(fields), self._settings.body_limit)
            body, more = await self._begin(source)
        repeatable = scope["method"] in IDEMPOTENT or first(fields, b"idempotency-key") is not None
        if not more:
            source = None
        peer = self._peer(scope)
        request = Request(scope["method"], target, request_fields(fields, peer, scope["http_version"]), body)
        try:
            payload = encode_request(request, more=more)
        except WireError as error:
            log.debug("request.bad", error=str(error))
            raise Refused(Reason.BAD_REQUEST) from error
        if repeatable and isinstance(source, Upload):
            source.keep(Spool(self._spools))
        settings = self._settings
        return Order(
            payload=payload,
            method=scope["method"],
            route=topology.DEFAULT_ROUTE,
            repeatable=repeatable,
            timeout=settings.timeout,
            route_grace=settings.route_grace,
            broker_grace=settings.broker_grace,
            traceparent=_traceparent(fields),
            upgrade=upgrade,
            source=source,
            # What an upload may have between the client and the broker.
            reserve=WINDOW if isinstance(source, Upload) else 0,
        )

    async def _begin(self, upload: Upload) -> tuple[bytes, bool]:
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if not self._pending.hold(size):
                raise Refused(Reason.OVERLOADED)
            held += size

        try:
            return await upload.begin(hold)
        except BodyTooLarge:
            raise Refused(Reason.BODY_TOO_LARGE) from None
        finally:
            # From here on the request is counted instead, until its ending.
            self._pending.release(held)

    def _declared(self, fields: Fields) -> int | None:
        """The length of the body, where it is known. Raises Refused."""
        try:
            declared = content_length(fields)
        except WireError as error:
            raise Refused(Reason.BAD_REQUEST) from error
        if declared is not None and declared > self._settings.body_limit:
            raise Refused(Reason.BODY_TOO_LARGE)
        # RFC 9112 §6.1: a request with "a transfer coding it does not understand" is not for this server. Nobody behind
        # us could undo it either, as the field stays here.
        if any(value.lower() != b"chunked" for value in values(fields, b"transfer-encoding")):
            raise Refused(Reason.BAD_REQUEST)
        # A request that frames no body has none (RFC 9112 §6.3).
        return declared if declared is not None or first(fields, b"transfer-encoding") else 0

    def _peer(self, scope: Scope) -> Peer:
        address = scope["client"][0] if scope["client"] else ""
        return Peer(address, scope["scheme"], self._proxies.trusts(address))

    def _exposed(self, ending: Ending) -> Fields:
        fields = [] if ending.reason is None else [(ERROR_FIELD.lower(), ending.reason.value.encode())]
        if not self._settings.expose_worker or ending.worker is None:
            return fields
        app = ending.app or 0.0
        timing = f"queue;dur={max(ending.total - app, 0) * 1000:.2f}, app;dur={app * 1000:.2f}"
        return [
            *fields,
            (b"rabbitbal-worker", ending.worker.encode("ascii", "replace")),
            (b"rabbitbal-attempt", b"%d" % ending.attempt),
            (b"server-timing", timing.encode()),
        ]

    async def _refuse(self, scope: Scope, send: Send, reason: Reason) -> None:
        """An answer given before the request was read to its end: the connection cannot be used again."""
        extra = [(ERROR_FIELD.lower(), reason.value.encode())]
        response = self._pending.refuse(reason, self._head(scope))
        await self._answer(scope, send, response, extra, close=True)

    def _head(self, scope: Scope) -> bytes:
        """The request as the log will show it, as far as it can be written down."""
        try:
            fields = request_fields(scope["headers"], self._peer(scope), scope["http_version"])
            return encode_request(without_body(Request(scope["method"], scope[TARGET], fields)))
        except WireError:
            return b""

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


def _traceparent(fields: Fields) -> str | None:
    """The trace that the request belongs to (W3C Trace Context §3.2); what is not well formed counts as none."""
    value = first(fields, b"traceparent")
    return value.decode() if value is not None and _TRACEPARENT.fullmatch(value) else None


def _target(scope: Scope) -> tuple[bytes, Fields]:
    """The request target in origin form, and the fields with the Host that it implies.

    RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
    lacks a Host header field and to any request message that contains more than one Host header field line". §3.2.2:
    a proxy given the absolute form "MUST ignore the received Host header field (if any) and instead replace it with
    the host information of the request-target".
    """
    fields: Fields = list(scope["headers"])
    hosts = sum(1 for _ in values(fields, b"host"))
    if hosts > 1 or (hosts == 0 and scope["http_version"] == "1.1"):
        raise Refused(Reason.BAD_REQUEST)
    target: bytes = scope[TARGET]
    if target.startswith(b"/"):
        return target.partition(b"#")[0], fields
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Refused(Reason.BAD_REQUEST)
    host, rest = absolute[1].rpartition(b"@")[2], absolute[2]
    fields = [(b"host", host), *(field for field in fields if field[0] != b"host")]
    return (rest if rest.startswith(b"/") else b"/" + rest), fields


def _printable(scope: Scope) -> str:
    target: bytes = scope.get(TARGET, b"")
    return target[:200].decode("latin-1")
