"""The copies of one request that are under way."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from rabbitbal.edge.pending import Pending
from rabbitbal.edge.ticket import Ending, Order, Ticket
from rabbitbal.wire.envelope import Leg
from rabbitbal.wire.reasons import Reason

log = structlog.get_logger()


class Departure(Protocol):
    """Whoever must hear when the client leaves."""

    def client_left(self) -> None: ...


Begin = Callable[[Departure], object]


def good(ending: Ending) -> bool:
    """An application answered, and did not fail."""
    return ending.reason is None and ending.response.status < 500


@dataclass(eq=False)
class Copy:
    """``ticket`` is there once it has begun."""

    order: Order
    task: "asyncio.Task[Ending]" = field(init=False)
    ticket: Ticket | None = None


class Group:
    """Starts copies, tells all of them what happens, and lets none of them be forgotten.

    ``end`` must be called, whatever happens: what it does not keep is given up and cleaned up behind it.
    """

    # The loop holds tasks weakly; a copy that was given up ends behind its group.
    _ending: "set[asyncio.Task[Ending]]" = set()  # noqa: RUF012 - of all groups

    def __init__(self, pending: Pending, name: str) -> None:
        self._pending = pending
        self._name = name
        self.copies: list[Copy] = []
        self._left = False
        self._over = False

    def start(self, order: Order, leg: Leg) -> Copy:
        """Under way at once. Its task gives its ending."""
        copy = Copy(replace(order, leg=leg, group=self._name))
        copy.task = asyncio.get_running_loop().create_task(self._run(copy))
        self.copies.append(copy)
        return copy

    async def _run(self, copy: Copy) -> Ending:
        def begun(ticket: Ticket) -> None:
            copy.ticket = ticket
            if self._left:
                ticket.client_left()
            elif self._over:
                ticket.supersede()

        return await self._pending.run(copy.order, begun)

    def client_left(self) -> None:
        self._left = True
        for copy in self.copies:
            if copy.ticket is not None:
                copy.ticket.client_left()

    async def first(self, waited: "set[asyncio.Task[Ending]]", timeout: float | None = None) -> list[Copy]:
        """The copies of those tasks that have ended, at least one of them unless the time is over."""
        done, _ = await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return [copy for copy in self.copies if copy.task in done]

    def end(self, winner: Ending | None) -> None:
        """Give up all copies but the one whose ending this is. With None (the edge goes down): all."""
        self._over = True
        for copy in self.copies:
            if copy.task.done():
                self._discard(copy.task, winner)
                continue
            self._ending.add(copy.task)
            copy.task.add_done_callback(self._ending.discard)
            copy.task.add_done_callback(lambda task: self._discard(task, winner))
            if winner is None:
                copy.task.cancel()
            elif copy.ticket is not None:
                copy.ticket.supersede()

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
