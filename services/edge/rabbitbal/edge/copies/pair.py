"""A request, and the same once more when it is late."""

import asyncio
from dataclasses import replace

from rabbitbal.edge.copies.body import at_hand, once_more
from rabbitbal.edge.copies.budget import Budget
from rabbitbal.edge.copies.group import Background, Begin, Copy, Group, better, good
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.ticket import Ending, Order, Ticket
from rabbitbal.wire.envelope import Leg
from rabbitbal.wire.reasons import Reason


class Pair:
    """Most requests are not late, so the first copy has no task of its own: a good answer to the second ends it as
    `superseded`, and with that the wait for it."""

    def __init__(self, pending: Pending, background: Background, order: Order) -> None:
        self._pending = pending
        self._group = Group(pending, background)
        self._order = replace(order, leg=Leg.PRIMARY, group=self._group.name)
        self._primary: Ticket | None = None
        self._hedge: Copy | None = None
        self.won = False
        self.refused = False

    @property
    def sent(self) -> bool:
        return self._hedge is not None

    async def run(self, late: float, budget: Budget, begin: Begin) -> Ending:
        """Carry it. ``late`` is in seconds."""

        def begun(ticket: Ticket) -> None:
            self._primary = ticket
            begin(self)

        timer = asyncio.get_running_loop().call_later(late, self._late, budget)
        ending: Ending | None = None
        try:
            ending = await self._pending.run(self._order, begun)
            if self._hedge is not None and not good(ending):
                ending = await self._best(ending, self._hedge)
            return ending
        finally:
            timer.cancel()
            self._group.end(ending)

    def client_left(self) -> None:
        if self._primary is not None:
            self._primary.client_left()
        self._group.client_left()

    def _late(self, budget: Budget) -> None:
        ticket = self._primary
        # To send what has not even reached a queue a second time would be no help. And a body that is still coming is
        # on its way to one worker.
        if ticket is None or ticket.settled or not ticket.confirmed or not at_hand(self._order.source):
            return
        if not budget.spend():
            self.refused = True
            return
        # The client waits for neither longer than for the first.
        left = ticket.deadline - asyncio.get_running_loop().time()
        order = replace(self._order, source=once_more(self._order.source), timeout=max(left, 0.001))
        self._hedge = self._group.start(order, Leg.HEDGE)
        self._hedge.task.add_done_callback(self._hedge_ended)

    def _hedge_ended(self, task: "asyncio.Task[Ending]") -> None:
        if task.cancelled() or task.exception() is not None:
            # Whoever waits for it, or ends the group, has the error.
            return
        if self._primary is not None and good(task.result()):
            self._primary.supersede()

    async def _best(self, first: Ending, hedge: Copy) -> Ending:
        """Of both answers, when the first one is bad."""
        best: Ending | None = None
        try:
            await asyncio.wait({hedge.task})
            best = better(first, hedge.task.result())
            self.won = best is not first
            return best
        finally:
            if first.stream is not None and best is not first:
                self._pending.close(first, Reason.SUPERSEDED, 0)
