"""The life of a request in the edge, and every way it can end.

Theory of operation
-------------------
A request is *pending* from `Pending.run` until its `Ticket` is settled. Exactly one call to `Ticket.settle` wins, so a
request has exactly one ending; whatever arrives afterwards (a late answer, a second answer) finds no ticket and is
dropped. The ticket is settled by whichever comes first:

* a **response** of a worker, of any attempt: an answer is an answer;
* the **deadline**: `worker-timeout` if a worker has claimed the request, else `queue-timeout`. No worker starts a
  request behind its deadline, so "it was not run" is the truth for the second. Where the broker kept the request while
  we were cut off from it nobody can say that: `worker-lost`;
* the **client leaves**: `client-gone`; the worker that claimed the request is sent a cancel, else the one that will;
* **another copy** of the request was answered first (`rabbitbal.edge.copies`): `superseded`, and a cancel likewise;
* the **broker refuses** the publish: `overloaded` (pool queue full), `unroutable` (no pool bound, after a grace),
  `broker-down` (no connection, after a grace; it was never sent);
* the broker hands the request out a second time: the worker that gets it does not run it but says `redelivered` and
  gives it up. The edge, who holds the request and its policy, decides: publish it again as the next attempt if it
  may run twice, else `worker-lost`; after `MAX_LOSSES` times `poison`, and a copy goes to the dead-letter exchange.
  The notice names the attempt, so a notice that comes twice counts once;
* a **worker that claimed it is gone**: a probe to its queue came back. That is such a loss, told earlier;
* the **connection to the broker is lost** after the publish: the request or its answer may be lost with it. Published
  again if it may run twice, else `worker-lost` at once: to wait would promise an answer that may never come. One that
  is kept by the broker (persistent, and confirmed) waits for its answer.

A request that was never sent may always wait: sending is what makes it unsafe. So may one that would have been claimed
before it was started (its body follows, or it is pinned to a worker), and was not.

Who does it: `publishing.py` gives a request to a queue; `replies.py` takes in what workers say; `losses.py` decides
about those that are lost; `feeding.py` and `streaming.py` carry bodies; `peers.py` looks whether workers are there;
`notices.py` tells the tap and the workers. All of them work on the same `Ticket`.

Bodies that do not travel with their heads:

* An **upload** follows its head to the worker that claims it, under the worker's credit, as often as it is claimed. It
  may be repeated while its spool holds all of it. Its deadline moves on with each piece.
* A **streamed response** settles the ticket with its head, and the ticket stays here until `close`: pieces arrive in
  its `Inlet`, credit goes out as the client reads. Nothing can be repeated then: what goes wrong breaks the client's
  connection. Such an ending is announced by an `ended` event, as is one without an answer.
"""

import asyncio
import time
from collections.abc import Callable
from secrets import token_hex

from rabbitbal.edge.carrier import Broker
from rabbitbal.edge.feeding import Feeding, feed_no_more
from rabbitbal.edge.losses import Losses
from rabbitbal.edge.notices import Notices
from rabbitbal.edge.peers import Peers
from rabbitbal.edge.publishing import Publishing
from rabbitbal.edge.replies import Replies
from rabbitbal.edge.retry_after import QueueWait
from rabbitbal.edge.streaming import Streaming
from rabbitbal.edge.ticket import Ending, Order, Ticket
from rabbitbal.runtime.streams import Broken
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import CLAIMED_AT_ONCE, Envelope, Kind, Leg
from rabbitbal.wire.figures import EdgeFigures
from rabbitbal.wire.flow import FIRST_WINDOW
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason, error_response, status_of


class Pending:
    """The requests in flight in this edge."""

    def __init__(self, edge: str, broker: Broker, max_pending: int, buffer_limit: int) -> None:
        self._edge = edge
        self._max_pending = max_pending
        self._buffer_limit = buffer_limit
        self._tickets: dict[str, Ticket] = {}
        self._bytes = 0
        self._notices = Notices(edge, broker)
        self._publishing = Publishing(broker, self._notices)
        self._losses = Losses(self._tickets, self._publishing, self._notices)
        self._peers = Peers(edge, broker, self._losses.worker_gone)
        feeding = Feeding(edge, broker, self._losses.lost)
        streaming = Streaming(edge, broker, self.hold)
        self._replies = Replies(
            self._tickets, self._notices, feeding, streaming, self._peers, self._losses, self._restart
        )
        self.prober = self._peers.prober
        self.wait = QueueWait()
        self.endings: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    # --- room

    def hold(self, size: int) -> bool:
        """Count bytes that are being received against the limit. False, and nothing counted, where they do not fit."""
        if self._bytes + size > self._buffer_limit:
            return False
        self._bytes += size
        return True

    def release(self, size: int) -> None:
        self._bytes -= size

    def figures(self, since: int, *, leaving: bool) -> EdgeFigures:
        """All that was counted since ``since`` (`rabbitbal.wire.figures`)."""
        oldest = next(iter(self._tickets.values()), None)
        return EdgeFigures(
            at=int(time.time() * 1000),
            since=since,
            opened=self._notices.opened,
            closed=self._notices.closed,
            untold=self._notices.untold,
            pending=len(self._tickets),
            oldest=None if oldest is None else oldest.envelope.sent,
            leaving=leaving,
            endings=dict(self.endings),
        )

    def roomy(self) -> bool:
        """Whether there is so much room that it may be used for what nobody waits for."""
        return len(self._tickets) * 2 <= self._max_pending and self._bytes * 2 <= self._buffer_limit

    # --- what the broker brings

    def reply(self, envelope: Envelope, payload: bytes) -> None:
        """A worker's message. Raises WireError when it makes no sense."""
        self._replies.take(envelope, payload)

    def broker_lost(self) -> None:
        """A connection is gone, and with it perhaps requests or replies."""
        self._losses.broker_lost()

    # --- the life of a request

    async def run(self, order: Order, begin: Callable[[Ticket], object]) -> Ending:
        """Carry a request to its ending, or to the head of a response whose body goes on: then the caller must `close`
        it. ``begin`` is given the ticket, to tell it when the client leaves."""
        loop = asyncio.get_running_loop()
        ticket = self._ticket(order, loop)
        ticket.held = len(order.payload) + order.reserve
        if len(self._tickets) >= self._max_pending or not self.hold(ticket.held):
            ticket.settle(Reason.OVERLOADED)
            if order.source is not None:
                order.source.close()
            return self._end(ticket)
        self._tickets[ticket.envelope.correlation_id] = ticket
        timer = loop.call_at(ticket.deadline, self._due, ticket)
        try:
            begin(ticket)
            self._publishing.send(ticket)
            # Shielded, or cancelling this task would cancel the outcome, and with it the ending told below.
            await asyncio.shield(ticket.outcome)
        except BaseException:
            if ticket.inlet is not None and ticket.streaming is not None:
                # Nobody will close it.
                self._forget(ticket)
                self._notices.close(ticket)
                self._notices.untold += 1
                self._notices.cancel(ticket.envelope.correlation_id, *ticket.streaming)
            raise
        finally:
            timer.cancel()
            if ticket.sender is not None:
                ticket.sender.cancel()
            # Also when this task itself is cancelled: the edge is going down and the client hears it by the close.
            ticket.settle(Reason.CLIENT_GONE)
            if ticket.inlet is None:
                self._forget(ticket)
            ending = self._end(ticket)
        return ending

    def close(self, ending: Ending, reason: Reason | None, size: int, digest: str | None = None) -> None:
        """The client has ``size`` bytes of a streamed response, and that is all unless there is a ``reason``.
        ``digest`` is their SHA-256, for who compares. A second time counts for nothing."""
        ticket = ending.stream
        assert ticket is not None and ticket.streaming is not None and ticket.inlet is not None  # noqa: S101, PT018
        if ticket.envelope.correlation_id not in self._tickets:
            return
        self._forget(ticket)
        self._notices.close(ticket)
        self._count(ticket, reason)
        if not ticket.inlet.ended:
            self._notices.cancel(ticket.envelope.correlation_id, *ticket.streaming)
        total = asyncio.get_running_loop().time() - ticket.started
        self._notices.ended(ticket, reason, ending.response.status, size, total, digest)

    def _ticket(self, order: Order, loop: asyncio.AbstractEventLoop) -> Ticket:
        now = time.time()
        envelope = Envelope(
            kind=Kind.REQUEST,
            correlation_id=token_hex(16),
            app_id=self._edge,
            reply_to=topology.response_key(self._edge),
            expiration=int(order.timeout * 1000),
            deadline=int((now + order.timeout) * 1000),
            sent=int(now * 1000),
            repeatable=order.repeatable,
            route=order.route,
            traceparent=order.traceparent,
            caller_span=order.caller_span,
            more=True if order.source is not None else None,
            credit=FIRST_WINDOW,
            upgrade=order.upgrade,
            leg=order.leg,
            group=order.group,
            partition=order.partition,
            persistent=order.persistent,
        )
        return Ticket(envelope, order, loop)

    def _due(self, ticket: Ticket) -> None:
        loop = asyncio.get_running_loop()
        if ticket.settled and not ticket.uploading:
            return
        if loop.time() < ticket.deadline:
            # An upload has moved it.
            loop.call_at(ticket.deadline, self._due, ticket)
        elif ticket.inlet is not None:
            # The answer has begun while the client still sends, and now it sends nothing that would be taken.
            if ticket.outlet is not None and not ticket.outlet.blocked:
                ticket.inlet.fail(Broken("the client stopped in the middle of its body", Reason.CLIENT_GONE))
            else:
                loop.call_later(ticket.order.timeout, self._due, ticket)
        else:
            unheard = Reason.WORKER_LOST if ticket.doubtful else Reason.QUEUE_TIMEOUT
            ticket.settle(Reason.WORKER_TIMEOUT if ticket.claimed_by else unheard)

    def _restart(self, ticket: Ticket) -> None:
        """The answer has begun; a client that still sends has time for it."""
        if ticket.uploading:
            loop = asyncio.get_running_loop()
            ticket.deadline = loop.time() + ticket.order.timeout
            loop.call_at(ticket.deadline, self._due, ticket)

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[ticket.envelope.correlation_id]
        self.release(ticket.held)
        feed_no_more(ticket)
        if ticket.granting is not None:
            ticket.granting.cancel()
        self._peers.forget(ticket)
        if ticket.order.source is not None:
            ticket.order.source.close()

    # --- endings

    def refuse(self, reason: Reason, head: bytes, retry_after: int | None = None) -> Response:
        """End a request that was never pending. ``head`` is what can be said of it in a log; it may be empty."""
        self.count(reason)
        self._notices.refused(token_hex(16), reason, head)
        return self.error(reason) if retry_after is None else error_response(reason, retry_after)

    def error(self, reason: Reason) -> Response:
        """What the client gets for a reason."""
        return error_response(reason, self._retry_after(reason))

    def count(self, reason: Reason | None) -> None:
        name = reason or "answered"
        self.endings[name] = self.endings.get(name, 0) + 1

    def notice(self, payload: dict[str, object]) -> None:
        """Tell the tap of something that belongs to no request. ``payload`` has at least `event`."""
        self._notices.notice(payload)

    def gathered(self, group: str, order: Order, reason: Reason | None, status: int, size: int, total: float) -> None:
        """Tell the tap what a client got that was put together of several answers, ``total`` seconds after it asked."""
        self._notices.gathered(group, order, reason, status, size, total)

    def _end(self, ticket: Ticket) -> Ending:
        reason, response, reply = ticket.outcome.result()
        total = asyncio.get_running_loop().time() - ticket.started
        app = reply.duration / 1e6 if reply is not None and reply.duration is not None else None
        if reason is None and app is not None and ticket.order.leg is not Leg.SHADOW:
            self.wait.add(total - app)
        stream = ticket if ticket.inlet is not None else None
        if stream is None:
            self._notices.close(ticket)
            self._count(ticket, reason)
        if reason is not None and stream is None:
            response = self.error(reason)
            if reply is None:
                self._notices.ended(ticket, reason, status_of(reason), 0, total)
                self._call_off(ticket, reason)
        assert response is not None  # noqa: S101 - settle() gives a reason or a response
        worker = reply.app_id if reply else None
        return Ending(response, reason, worker, ticket.attempt, total, app, reply.pool if reply else None, stream)

    def _call_off(self, ticket: Ticket, reason: Reason) -> None:
        """Nobody waits for the answer any more."""
        if ticket.claimed_by is not None:
            self._notices.cancel(ticket.envelope.correlation_id, ticket.claimed_by, ticket.attempt)
        elif reason is Reason.CLIENT_GONE and ticket.sent and ticket.order.leg not in CLAIMED_AT_ONCE:
            # Whoever has it, or will have it.
            self._notices.cancel(ticket.envelope.correlation_id, topology.EVERY_WORKER, ticket.attempt)

    def _count(self, ticket: Ticket, reason: Reason | None) -> None:
        # A shadow is no client's request.
        if ticket.order.leg is not Leg.SHADOW:
            self.count(reason)

    def _retry_after(self, reason: Reason) -> int | None:
        if reason is Reason.BROKER_DOWN or reason is Reason.UNROUTABLE:
            return 5
        return self.wait.retry_after() if reason is Reason.OVERLOADED else None
