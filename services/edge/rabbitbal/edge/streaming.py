"""The body of a response that comes in pieces: how much of it may come."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from rabbitbal.edge.carrier import Broker, to_worker
from rabbitbal.edge.ticket import Ticket
from rabbitbal.runtime.broker import Disconnected
from rabbitbal.runtime.streams import Broken, Inlet
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.flow import FIRST_WINDOW, WINDOW
from rabbitbal.wire.reasons import Reason

# What was sent before a worker's queue went away may still be on its way through ours.
LAST_WORDS = 1.0


class Streaming:
    """Opens inlets and tells workers their credit. ``hold`` counts memory, and says whether there is any."""

    def __init__(self, edge: str, broker: Broker, hold: Callable[[int], bool]) -> None:
        self._edge = edge
        self._broker = broker
        self._hold = hold

    def begin(self, ticket: Ticket, envelope: Envelope, tunnel: bool) -> None:
        """The head of the response is here, in ``envelope``, and its body follows."""

        def grant(credit: int) -> None:
            ticket.credit = max(ticket.credit, credit)
            if ticket.granting is None or ticket.granting.done():
                ticket.granting = asyncio.get_running_loop().create_task(self._grant(ticket))

        ticket.inlet = Inlet(grant, FIRST_WINDOW)
        ticket.streaming = (envelope.app_id, envelope.attempt)
        # Where there is no memory for a wide window the first one stays; it is within what `max_pending` allows for.
        # A shadow is in nobody's hurry.
        if not tunnel and ticket.order.leg is not Leg.SHADOW and self._hold(WINDOW):
            ticket.held += WINDOW
            ticket.inlet.widen(WINDOW)

    async def _grant(self, ticket: Ticket) -> None:
        """Tell the worker the newest credit until it is told."""
        assert ticket.streaming is not None  # noqa: S101 - there is an inlet
        worker, attempt = ticket.streaming
        about = Envelope(Kind.CREDIT, ticket.envelope.correlation_id, self._edge, attempt=attempt)
        told = 0
        while told < ticket.credit:
            told = ticket.credit
            try:
                await to_worker(self._broker, worker, replace(about, credit=told), b"")
            except Disconnected:
                # The loss of the worker is noticed elsewhere; that of the broker, too. A bound that passed is neither.
                if ticket.inlet is not None and self._broker.up():
                    loop = asyncio.get_running_loop()
                    loop.call_later(LAST_WORDS, ticket.inlet.fail, Broken("no way to the worker", Reason.WORKER_LOST))
                return
