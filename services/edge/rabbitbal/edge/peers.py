"""The workers that have something of ours in hand, and whether they are still there."""

from collections.abc import Callable

from rabbitbal.edge.carrier import Broker
from rabbitbal.edge.ticket import Ticket
from rabbitbal.runtime.broker import Verdict
from rabbitbal.runtime.probing import Prober
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind

PROBE_TIMEOUT = 5.0


class Peers:
    """Watches one worker for each ticket. ``gone`` hears whose queue is no more."""

    def __init__(self, edge: str, broker: Broker, gone: Callable[[str], None]) -> None:
        self._edge = edge
        self._broker = broker
        self.prober = Prober(self._probe, gone)

    def watch(self, ticket: Ticket, worker: str) -> None:
        self.forget(ticket)
        ticket.watched = worker
        self.prober.watch(worker)

    def forget(self, ticket: Ticket) -> None:
        if ticket.watched is not None:
            self.prober.forget(ticket.watched)
            ticket.watched = None

    async def _probe(self, worker: str) -> Verdict:
        envelope = Envelope(Kind.PROBE, "probe", self._edge)
        return await self._broker.publish(topology.STREAMS, worker, envelope, b"", timeout=PROBE_TIMEOUT)
