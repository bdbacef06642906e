"""What an edge says that nobody waits for: endings for the tap, cancels for workers, and news."""

import asyncio
import json
import time
from datetime import UTC, datetime

import structlog

from rabbitbal.edge.carrier import Broker
from rabbitbal.edge.ticket import Order, Ticket
from rabbitbal.runtime.broker import Disconnected, Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import decode_request, encode_request, without_body
from rabbitbal.wire.reasons import Reason, status_of

log = structlog.get_logger()

NOTICE_TIMEOUT = 5.0
# Notices on their way at one time; each request may cause two, and a blocked broker takes none.
MAX_NOTICES = 1000


class Notices:
    """Publishes without holding anybody up. What cannot be told now is told by nobody later."""

    def __init__(self, edge: str, broker: Broker) -> None:
        self._edge = edge
        self._broker = broker
        self._tasks: set[asyncio.Task[None]] = set()
        self.opened = 0
        """Requests that were given to a pool, or ended before that: each is counted once."""
        self.closed = 0
        """Of those, the ones that have ended."""
        self.untold = 0
        """Endings that the tap should have been told, and was not, or perhaps not."""

    def __len__(self) -> int:
        """How many are on their way."""
        return len(self._tasks)

    def able(self) -> bool:
        return self._broker.up() and len(self._tasks) < MAX_NOTICES

    def open(self, ticket: Ticket) -> None:
        """Count a request that a pool has, or that ends without. Again and again is once."""
        if not ticket.opened:
            ticket.opened = True
            self.opened += 1

    def close(self, ticket: Ticket) -> None:
        """Count its end. An answer may overtake the confirm that a pool has it."""
        self.open(ticket)
        self.closed += 1

    def tell(self, exchange: str, key: str, envelope: Envelope, body: bytes = b"") -> None:
        if self.able():
            task = asyncio.ensure_future(self._publish(exchange, key, envelope, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif envelope.kind is Kind.ENDED:
            self.untold += 1

    def notice(self, payload: dict[str, object]) -> None:
        """Something that belongs to no request. ``payload`` has at least `event`."""
        said = {"who": self._edge, "when": datetime.now(UTC).isoformat(timespec="milliseconds"), **payload}
        envelope = Envelope(Kind.NOTICE, "notice", self._edge)
        self.tell(topology.EVENTS, topology.notice_key("edge", self._edge), envelope, json.dumps(said).encode())

    def cancel(self, correlation_id: str, worker: str, attempt: int) -> None:
        """Of this attempt and those before: the next one may be on the same worker."""
        envelope = Envelope(kind=Kind.CANCEL, correlation_id=correlation_id, app_id=self._edge, attempt=attempt)
        self.tell(topology.STREAMS, worker, envelope)

    def forsake(self, ticket: Ticket) -> None:
        """Tell the worker of the attempt before that it waits for its body in vain. It may be there still: not it was
        lost, but a piece on its way, or our connection."""
        if ticket.forsaken is not None:
            self.cancel(ticket.envelope.correlation_id, *ticket.forsaken)
            ticket.forsaken = None

    def refused(self, correlation_id: str, reason: Reason, head: bytes) -> None:
        """The ending of a request that was never pending."""
        self._never_pending()
        self._ended(self._event(correlation_id, reason, status_of(reason), 0.0), head)

    def gathered(self, group: str, order: Order, reason: Reason | None, status: int, size: int, total: float) -> None:
        """The ending of a client's request that several copies answered together."""
        self._never_pending()
        event = self._event(group, reason, status, total, size=size, route=order.route, group=group, order=order)
        self._ended(event, head_of(order) if self.able() else b"")

    def ended(
        self, ticket: Ticket, reason: Reason | None, status: int, size: int, total: float, digest: str | None = None
    ) -> None:
        """An ending that no worker's response tells, ``total`` seconds after the request came."""
        order, name = ticket.order, ticket.envelope.correlation_id
        if reason is not None:
            log.info("request.ended", reason=reason.value, id=name, attempt=ticket.attempt)
        event = self._event(
            name,
            reason,
            status,
            total,
            attempt=ticket.attempt,
            size=size,
            route=order.route,
            leg=order.leg,
            group=order.group,
            digest=digest,
            order=order,
        )
        # A tap has seen what was given to a pool; of anything else it learns here.
        self._ended(event, head_of(order) if not ticket.copied and self.able() else b"")

    def _never_pending(self) -> None:
        self.opened += 1
        self.closed += 1

    def _event(
        self,
        correlation_id: str,
        reason: Reason | None,
        status: int,
        total: float,
        *,
        attempt: int = 1,
        size: int | None = None,
        route: str | None = None,
        leg: Leg | None = None,
        group: str | None = None,
        digest: str | None = None,
        order: Order | None = None,
    ) -> Envelope:
        # Where the edge has no part in the trace, the tap makes no spans of it.
        traced = order if order is not None and order.caller_span is not None else None
        return Envelope(
            kind=Kind.ENDED,
            correlation_id=correlation_id,
            app_id=self._edge,
            attempt=attempt,
            reason=reason,
            status=status,
            size=size,
            duration=int(total * 1e6),
            sent=int(time.time() * 1000),
            route=route,
            leg=leg,
            group=group,
            digest=digest,
            traceparent=None if traced is None else traced.traceparent,
            caller_span=None if traced is None else traced.caller_span,
        )

    def _ended(self, event: Envelope, head: bytes) -> None:
        self.tell(topology.EVENTS, f"ended.{self._edge}", event, head)

    async def _publish(self, exchange: str, key: str, envelope: Envelope, body: bytes) -> None:
        try:
            verdict = await self._broker.publish(exchange, key, envelope, body, timeout=NOTICE_TIMEOUT)
            self.untold += verdict is not Verdict.ROUTED and envelope.kind is Kind.ENDED
        except Disconnected as error:
            self.untold += envelope.kind is Kind.ENDED
            log.info("edge.notice_lost", kind=envelope.kind.value, id=envelope.correlation_id, error=str(error))


def head_of(order: Order) -> bytes:
    """The request less its body: what a log needs."""
    return encode_request(without_body(decode_request(order.payload, more=order.source is not None)))
