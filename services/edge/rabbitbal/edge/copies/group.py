"""The copies of one request that are under way."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Protocol

import structlog

from rabbitbal.edge.pending import Pending
from rabbitbal.edge.ticket import Ending, Order, Ticket
from rabbitbal.edge.traces import copied
from rabbitbal.wire.envelope import Leg
from rabbitbal.wire.reasons import Reason

log = structlog.get_logger()


class Departure(Protocol):
    """Whoever must hear when the client leaves."""

    def client_left(self) -> None: ...


Begin = Callable[[Departure], object]
Background = set["asyncio.Task[Ending]"]


def good(ending: Ending) -> bool:
    """An application answered, and did not fail."""
    return ending.reason is None and ending.response.status < 500


def better(one: Ending, other: Ending) -> Ending:
    """A good answer before a bad one, an application's before one of ours, and the earlier before the later."""
    return other if _rank(other) > _rank(one) else one


def _rank(ending: Ending) -> int:
    return good(ending) + (ending.reason is None)


@dataclass(eq=False)
class Copy:
    """``ticket`` is there once it has begun."""

    order: Order
    task: "asyncio.Task[Ending]" = field(init=False)
    ticket: Ticket | None = None


class Group:
    """Starts copies, tells all of them what happens, and lets none of them be forgotten.

    ``end`` must be called, whatever happens: what it does not keep is given up and cleaned up behind it. The loop holds
    tasks weakly, so those that end behind their group are kept in ``background``.
    """

    def __init__(self, pending: Pending, background: Background) -> None:
        self.name = token_hex(16)
        self.left = False
        self._pending = pending
        self._background = background
        self._copies: list[Copy] = []
        self._over: Reason | None = None

    def start(self, order: Order, leg: Leg) -> Copy:
        """Under way at once. Its task gives its ending."""
        copy = Copy(replace(copied(order), leg=leg, group=self.name))
        copy.task = asyncio.get_running_loop().create_task(self._run(copy))
        self._copies.append(copy)
        return copy

    async def _run(self, copy: Copy) -> Ending:
        def begun(ticket: Ticket) -> None:
            copy.ticket = ticket
            if self.left:
                ticket.client_left()
            elif self._over is not None:
                ticket.settle(self._over)

        return await self._pending.run(copy.order, begun)

    def client_left(self) -> None:
        self.left = True
        for copy in self._copies:
            if copy.ticket is not None:
                copy.ticket.client_left()

    def give_up(self, reason: Reason) -> None:
        """All copies that have no answer end so."""
        if reason is Reason.CLIENT_GONE:
            self.client_left()
            return
        self._over = reason
        for copy in self._copies:
            if copy.ticket is not None:
                copy.ticket.settle(reason)

    def end(self, winner: Ending | None) -> None:
        """Give up all copies but the one whose ending this is. With None (the edge goes down): all."""
        if winner is not None:
            self.give_up(Reason.SUPERSEDED)
        for copy in self._copies:
            if copy.task.done():
                self._discard(copy.task, winner)
                continue
            self._background.add(copy.task)
            copy.task.add_done_callback(self._background.discard)
            copy.task.add_done_callback(lambda task: self._discard(task, winner))
            if winner is None:
                copy.task.cancel()

    def _discard(self, task: "asyncio.Task[Ending]", winner: Ending | None) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("edge.defect", exc_info=error)
            return
        ending = task.result()
        if ending is not winner and ending.stream is not None:
            # Its head came, and nobody wants the rest.
            self._pending.close(ending, Reason.SUPERSEDED, 0)
