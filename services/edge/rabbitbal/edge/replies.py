"""What workers say, and to whom it matters."""

from collections.abc import Callable, Mapping

import structlog

from rabbitbal.edge.feeding import Feeding, leave
from rabbitbal.edge.losses import Losses
from rabbitbal.edge.notices import Notices
from rabbitbal.edge.peers import Peers
from rabbitbal.edge.streaming import Streaming
from rabbitbal.edge.ticket import Ticket
from rabbitbal.runtime.streams import Broken
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.message import Response, decode_response, is_whole
from rabbitbal.wire.reasons import Reason

log = structlog.get_logger()


class Replies:
    """Takes messages in, and finds their tickets. ``restart`` begins the deadline of an upload anew."""

    def __init__(
        self,
        tickets: Mapping[str, Ticket],
        notices: Notices,
        feeding: Feeding,
        streaming: Streaming,
        peers: Peers,
        losses: Losses,
        restart: Callable[[Ticket], None],
    ) -> None:
        self._tickets = tickets
        self._notices = notices
        self._feeding = feeding
        self._streaming = streaming
        self._peers = peers
        self._losses = losses
        self._restart = restart

    def take(self, envelope: Envelope, payload: bytes) -> None:
        """A worker's message. Raises WireError when it makes no sense."""
        ticket = self._tickets.get(envelope.correlation_id)
        if envelope.kind is Kind.RESPONSE:
            self._answered(ticket, envelope, payload)
        elif envelope.kind is Kind.CLAIM:
            self._claimed(ticket, envelope)
        elif envelope.kind is Kind.REDELIVERED:
            if ticket is None or envelope.attempt != ticket.attempt:
                return
            if not ticket.settled:
                self._losses.lost(ticket)
            elif ticket.inlet is not None:
                ticket.inlet.fail(Broken("the worker was lost", Reason.WORKER_LOST))
        elif envelope.kind is Kind.BODY:
            if ticket is None or ticket.inlet is None or ticket.streaming != (envelope.app_id, envelope.attempt):
                # Whoever sends it will run dry of credit; a cancel spares him the wait.
                self._cancel(envelope)
                return
            more = bool(envelope.more)
            ticket.inlet.receive(envelope.sequence, payload, more=more, reason=envelope.reason)
        elif envelope.kind is Kind.CREDIT:
            worker = ticket and (ticket.claimed_by, ticket.attempt)
            if ticket is not None and ticket.outlet is not None and worker == (envelope.app_id, envelope.attempt):
                ticket.outlet.grant(envelope.credit or 0)
        elif envelope.kind is not Kind.PROBE:
            raise WireError(f"kind {envelope.kind} is not for an edge")

    def _claimed(self, ticket: Ticket | None, envelope: Envelope) -> None:
        if ticket is None or ticket.settled:
            if ticket is None or ticket.streaming != (envelope.app_id, envelope.attempt):
                self._cancel(envelope)
        elif ticket.claimed_first and (ticket.claimed_by or envelope.attempt != ticket.attempt):
            # It waits for what another one has: the body, or the answer. (One that says it twice is known.)
            if (ticket.claimed_by, ticket.attempt) != (envelope.app_id, envelope.attempt):
                self._cancel(envelope)
        elif envelope.attempt == ticket.attempt and ticket.claimed_by is None:
            ticket.claimed_by = envelope.app_id
            ticket.ever_claimed = True
            self._peers.watch(ticket, envelope.app_id)
            if ticket.order.source is not None:
                self._feeding.begin(ticket, ticket.order.source, envelope.credit or 0)

    def _answered(self, ticket: Ticket | None, envelope: Envelope, payload: bytes) -> None:
        if ticket is None or ticket.settled:
            self._late(ticket, envelope)
            return
        if envelope.reason is Reason.WORKER_LOST and envelope.attempt != ticket.attempt:
            # That attempt was broken off, and there is another.
            return
        try:
            response = _response(ticket, envelope, payload)
        except WireError:
            ticket.settle(Reason.BAD_RESPONSE, None, envelope)
            if envelope.more:
                self._cancel(envelope)
            raise
        if ticket.outlet is not None and (ticket.claimed_by, ticket.attempt) != (envelope.app_id, envelope.attempt):
            leave(ticket)
            self._notices.forsake(ticket)
        if envelope.more:
            self._streaming.begin(ticket, envelope, response.status == 101)
            self._restart(ticket)
            self._peers.watch(ticket, envelope.app_id)
        ticket.settle(envelope.reason, response, envelope)

    def _late(self, ticket: Ticket | None, envelope: Envelope) -> None:
        """An answer behind the ending."""
        log.debug("edge.late_response", id=envelope.correlation_id, worker=envelope.app_id)
        if ticket is not None and ticket.inlet is not None and ticket.streaming == (envelope.app_id, envelope.attempt):
            # The head again, as its confirm was lost; or, once it could not go on, an error in its place.
            if envelope.reason is not None:
                ticket.inlet.fail(Broken(f"ended by {envelope.reason}", envelope.reason))
        elif envelope.more:
            self._cancel(envelope)

    def _cancel(self, envelope: Envelope) -> None:
        self._notices.cancel(envelope.correlation_id, envelope.app_id, envelope.attempt)


def _response(ticket: Ticket, envelope: Envelope, payload: bytes) -> Response:
    """A response that makes sense for this request. Raises WireError."""
    more = bool(envelope.more)
    response = decode_response(payload, more=more)
    if more and ticket.order.method == "HEAD":
        raise WireError("a response to HEAD has no body")
    if response.status == 101 and ticket.order.upgrade is None:
        raise WireError("status 101 without an upgrade")
    if not more and not is_whole(response, ticket.order.method):
        raise WireError("the body is not of the declared length")
    return response
