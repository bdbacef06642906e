"""From an ASGI request to an order: where it goes, under which policy, and what of its body goes with it."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from rabbitbal.edge import sticky
from rabbitbal.edge.forwarding import Peer, TrustedProxies, request_fields
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.protocol import TARGET, UPGRADE
from rabbitbal.edge.reading import Refused, declared_length, may_run_twice, target_of, traceparent
from rabbitbal.edge.settings import Settings
from rabbitbal.edge.spool import Spool, SpoolSpace
from rabbitbal.edge.sticky import Session
from rabbitbal.edge.suspects import Suspects
from rabbitbal.edge.ticket import Order
from rabbitbal.edge.traces import Trace, taken_up
from rabbitbal.edge.tunnel import TunnelBody
from rabbitbal.edge.upload import BodyTooLarge, Upload
from rabbitbal.routes.policy import Bots, Delivery, Mode
from rabbitbal.routes.question import question
from rabbitbal.routes.table import Route
from rabbitbal.routes.watch import RoutesFile
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Field
from rabbitbal.wire.flow import WINDOW
from rabbitbal.wire.message import Request, encode_request, without_body
from rabbitbal.wire.reasons import Reason

log = structlog.get_logger()

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]

# What several copies read is kept by those who copy.
_SHARED = frozenset({Mode.FIRST, Mode.ALL})
_NO_SESSION = Session()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that can be published now."""

    order: Order
    route: Route
    keys: tuple[str, ...]
    """Where it goes, at least one."""
    cookie: Field | None
    """The Set-Cookie field that its answer brings."""


class Intake:
    """Reads requests up to where they can be published."""

    def __init__(
        self, settings: Settings, pending: Pending, routes: RoutesFile, spools: SpoolSpace, suspects: Suspects
    ) -> None:
        """Raises ValueError for proxies that are no networks."""
        self._settings = settings
        self._pending = pending
        self._routes = routes
        self._spools = spools
        self._suspects = suspects
        self._proxies = TrustedProxies(settings.trusted_proxies)

    async def accept(self, scope: Scope, receive: Receive) -> Accepted:
        """Raises Refused and ClientGone.

        A route is found by the fields that the application will see: not by such as a stranger forged, or as stay here.
        """
        settings, method = self._settings, scope["method"]
        target, received = target_of(scope)
        declared = declared_length(received)
        fields = request_fields(received, self._peer(scope), scope["http_version"])
        trace: Trace | None = None
        if settings.trace:
            fields, trace = taken_up(fields, settings.trace_sample)
        asked = question(method, target, fields)
        route = self._routes.table.find(asked)
        policy, keys = route.policy, route.keys(asked)
        if policy.bots is Bots.REFUSE and (left := self._suspects.left(fields)) is not None:
            raise Refused(Reason.SUSPECTED_BOT, math.ceil(left))
        limit = settings.body_limit if policy.body_limit is None else min(policy.body_limit, settings.body_limit)
        if declared is not None and declared > limit:
            raise Refused(Reason.BODY_TOO_LARGE)
        upgrade: str | None = scope[UPGRADE]
        source: Upload | TunnelBody | None
        if upgrade is not None:
            body, more, source = b"", True, TunnelBody()
        else:
            source = Upload(receive, declared, limit)
            body, more = await self._begin(source)
        if not more:
            source = None
        try:
            payload = encode_request(Request(method, target, fields, body), more=more)
        except WireError as error:
            log.debug("request.bad", error=str(error))
            raise Refused(Reason.BAD_REQUEST) from error
        session = sticky.session_of(policy.sticky, fields) if policy.sticky is not None else _NO_SESSION
        repeatable = may_run_twice(method, fields, policy.redeliver)
        if repeatable and isinstance(source, Upload) and policy.mode not in _SHARED:
            source.keep(Spool(self._spools))
        order = Order(
            payload=payload,
            method=method,
            route=route.name,
            repeatable=repeatable,
            timeout=settings.timeout if policy.timeout is None else policy.timeout,
            route_grace=settings.route_grace,
            broker_grace=settings.broker_grace,
            traceparent=traceparent(fields) if trace is None else trace.traceparent,
            caller_span=None if trace is None else trace.caller,
            upgrade=upgrade,
            source=source,
            # What an upload may have between the client and the broker.
            reserve=WINDOW if isinstance(source, Upload) else 0,
            key=keys[0],
            partition=session.partition,
            persistent=policy.delivery is Delivery.PERSISTENT,
        )
        return Accepted(order, route, keys, session.cookie)

    def head(self, scope: Scope) -> bytes:
        """A request as the log will show it, as far as it can be written down."""
        try:
            fields = request_fields(scope["headers"], self._peer(scope), scope["http_version"])
            return encode_request(without_body(Request(scope["method"], scope[TARGET], fields)))
        except WireError:
            return b""

    def _peer(self, scope: Scope) -> Peer:
        address = scope["client"][0] if scope["client"] else ""
        return Peer(address, scope["scheme"], self._proxies.trusts(address))

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
