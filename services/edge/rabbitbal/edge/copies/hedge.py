"""Requests that are late are sent once more, within a budget."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from rabbitbal.edge.copies.budget import Budget
from rabbitbal.edge.copies.group import Background, Begin
from rabbitbal.edge.copies.latency import Latency
from rabbitbal.edge.copies.pair import Pair
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.ticket import Ending, Order
from rabbitbal.routes.policy import Hedge

# Routes come and go with the table.
MOST_ROUTES = 1000
# Of 100 requests so many are in time at least.
PUNCTUAL = 0.95


@dataclass
class Known:
    """Of one route. ``refused`` counts the late ones for which there was no budget."""

    latency: Latency = field(default_factory=Latency)
    budget: Budget = field(default_factory=Budget)
    requests: int = 0
    sent: int = 0
    won: int = 0
    refused: int = 0


class Hedges:
    """Knows routes by their names; those that were not used for longest are forgotten."""

    def __init__(self, pending: Pending, background: Background) -> None:
        self._pending = pending
        self._background = background
        self._routes: OrderedDict[str, Known] = OrderedDict()

    async def run(self, order: Order, route: str, hedge: Hedge, begin: Begin) -> Ending:
        """Carry a request, a second time if it is late and may run twice."""
        loop = asyncio.get_running_loop()
        known, started = self._of(route), loop.time()
        # Were more late than may be sent twice, the budget would go to those that are late first, not to the latest.
        known.latency.quantile = max(PUNCTUAL, 1 - hedge.budget)
        known.requests += 1
        known.budget.earn(hedge.budget)
        if not order.repeatable:
            return await self._pending.run(order, begin)
        late = hedge.after if hedge.after is not None else known.latency.late()
        if late is None:
            ending = await self._pending.run(order, begin)
        else:
            pair = Pair(self._pending, self._background, order)
            ending = await pair.run(late, known.budget, begin)
            known.sent += pair.sent
            known.won += pair.won
            known.refused += pair.refused
        # The time of an upload is its client's.
        if ending.reason is None and order.source is None:
            known.latency.add(loop.time() - started)
        return ending

    def stats(self) -> dict[str, object]:
        """Sums over the routes that are known, and when a request of each is late, in seconds."""
        routes = self._routes
        return {
            "requests": sum(route.requests for route in routes.values()),
            "sent": sum(route.sent for route in routes.values()),
            "won": sum(route.won for route in routes.values()),
            "refused": sum(route.refused for route in routes.values()),
            "late_seconds": {name: _rounded(route.latency.late()) for name, route in routes.items()},
        }

    def _of(self, route: str) -> Known:
        known = self._routes.get(route)
        if known is None:
            known = self._routes[route] = Known()
            if len(self._routes) > MOST_ROUTES:
                self._routes.popitem(last=False)
        else:
            self._routes.move_to_end(route)
        return known


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
