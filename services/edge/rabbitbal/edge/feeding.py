"""The body of a request on its way to the worker that claimed it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from rabbitbal.edge.carrier import Broker, to_worker
from rabbitbal.edge.ticket import Source, Ticket
from rabbitbal.edge.upload import BodyTooLarge, ClientGone, NoRoom
from rabbitbal.runtime.broker import Disconnected
from rabbitbal.runtime.streams import Broken, Outlet
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.reasons import Reason

log = structlog.get_logger()


class Feeding:
    """Feeds workers. ``lost`` hears of a request whose worker cannot have the whole body any more."""

    def __init__(self, edge: str, broker: Broker, lost: Callable[[Ticket], None]) -> None:
        self._edge = edge
        self._broker = broker
        self._lost = lost

    def begin(self, ticket: Ticket, source: Source, credit: int) -> None:
        """Send the rest of the request's body to the worker that has just claimed it."""
        worker = ticket.claimed_by
        assert worker is not None  # noqa: S101 - it has just claimed
        about = Envelope(Kind.BODY, ticket.envelope.correlation_id, self._edge, attempt=ticket.attempt)

        async def send(sequence: int, piece: bytes, more: bool, reason: Reason | None) -> None:
            envelope = replace(about, sequence=sequence, more=more, reason=reason)
            await to_worker(self._broker, worker, envelope, piece)

        ticket.outlet = Outlet(send, credit)
        ticket.pump = asyncio.get_running_loop().create_task(self._pump(ticket, source, ticket.outlet))

    async def _pump(self, ticket: Ticket, source: Source, outlet: Outlet) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for piece in source.pieces():
                await outlet.write(piece)
                ticket.deadline = loop.time() + ticket.order.timeout
            await outlet.end()
            ticket.deadline = loop.time() + ticket.order.timeout
        except ClientGone:
            ticket.client_left()
        except (BodyTooLarge, NoRoom) as error:
            ticket.settle(error.reason)
            if ticket.inlet is not None:
                ticket.inlet.fail(Broken(f"the request's body: {error.reason}", error.reason))
        except Disconnected as error:
            log.info("edge.upload_broken", id=ticket.envelope.correlation_id, error=str(error))
            if ticket.outlet is outlet:
                self._broken(ticket)
        except Exception:
            log.exception("edge.upload_failed", id=ticket.envelope.correlation_id)
            ticket.settle(Reason.EDGE_ERROR)

    def _broken(self, ticket: Ticket) -> None:
        if ticket.inlet is not None:
            ticket.inlet.fail(Broken("the worker was lost", Reason.WORKER_LOST))
        elif not ticket.settled:
            self._lost(ticket)


def feed_no_more(ticket: Ticket) -> None:
    if ticket.pump is not None:
        ticket.pump.cancel()
    if ticket.outlet is not None:
        ticket.outlet.abandon()
    ticket.pump = ticket.outlet = None


def leave(ticket: Ticket) -> None:
    """Feed this worker no more. It is told with the next attempt, or now by `Notices.forsake`."""
    if ticket.outlet is not None and ticket.claimed_by is not None:
        ticket.forsaken = (ticket.claimed_by, ticket.attempt)
    feed_no_more(ticket)
