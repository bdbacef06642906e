"""What becomes of requests whose worker, or whose broker, is lost."""

from collections.abc import Mapping
from dataclasses import replace

from rabbitbal.edge.feeding import leave
from rabbitbal.edge.notices import Notices
from rabbitbal.edge.publishing import Publishing
from rabbitbal.edge.ticket import Ticket
from rabbitbal.runtime.streams import Broken
from rabbitbal.wire import topology
from rabbitbal.wire.reasons import Reason

MAX_LOSSES = 3


class Losses:
    """Publishes again what may run twice or was never started, and ends the rest."""

    def __init__(self, tickets: Mapping[str, Ticket], publishing: Publishing, notices: Notices) -> None:
        self._tickets = tickets
        self._publishing = publishing
        self._notices = notices

    def lost(self, ticket: Ticket) -> None:
        """The worker that had the request is gone."""
        # What nobody has started kills nobody.
        ticket.losses += not ticket.never_started
        if not ticket.repeatable and not ticket.never_started:
            ticket.settle(Reason.WORKER_LOST)
        elif ticket.losses >= MAX_LOSSES:
            ticket.settle(Reason.POISON)
            envelope = replace(ticket.envelope, attempt=ticket.attempt, reason=Reason.POISON, expiration=None)
            self._notices.tell(topology.DEAD, "", envelope, ticket.order.payload)
        else:
            self._again(ticket)

    def worker_gone(self, worker: str) -> None:
        """Its queue is no more, and so is whatever it ran."""
        for ticket in list(self._tickets.values()):
            if ticket.inlet is not None:
                if ticket.streaming is not None and ticket.streaming[0] == worker:
                    ticket.inlet.fail(Broken(f"{worker} is gone", Reason.WORKER_LOST))
            elif ticket.claimed_by == worker and not ticket.settled:
                self.lost(ticket)

    def broker_lost(self) -> None:
        """A connection is gone, and with it perhaps requests, claims or replies."""
        for ticket in list(self._tickets.values()):
            if ticket.inlet is not None:
                ticket.inlet.fail(Broken("the broker was lost", Reason.WORKER_LOST))
            elif ticket.settled or not ticket.sent:
                continue
            elif ticket.repeatable:
                self._again(ticket)
            elif ticket.kept_by_broker:
                ticket.doubtful = True
            else:
                ticket.settle(Reason.WORKER_LOST)

    def _again(self, ticket: Ticket) -> None:
        leave(ticket)
        ticket.claimed_by = None
        ticket.confirmed = False
        ticket.attempt += 1
        self._publishing.send(ticket)
