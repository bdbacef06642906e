"""What is known of each route to decide when a request is late, and whether it may be sent a second time."""

from collections import OrderedDict
from dataclasses import dataclass, field

from rabbitbal.edge.copies.budget import Budget
from rabbitbal.edge.copies.latency import Latency

# Routes come and go with the table.
MOST_ROUTES = 1000


@dataclass
class Hedging:
    """Of one route. ``refused`` counts the late ones for which there was no budget."""

    latency: Latency = field(default_factory=Latency)
    budget: Budget = field(default_factory=Budget)
    requests: int = 0
    sent: int = 0
    won: int = 0
    refused: int = 0


class Hedgings:
    """By the route's name; those that were not used for longest are forgotten."""

    def __init__(self) -> None:
        self._routes: OrderedDict[str, Hedging] = OrderedDict()

    def of(self, route: str) -> Hedging:
        known = self._routes.get(route)
        if known is None:
            known = self._routes[route] = Hedging()
            if len(self._routes) > MOST_ROUTES:
                self._routes.popitem(last=False)
        else:
            self._routes.move_to_end(route)
        return known

    def stats(self) -> dict[str, object]:
        routes = self._routes
        return {
            "requests": sum(route.requests for route in routes.values()),
            "sent": sum(route.sent for route in routes.values()),
            "won": sum(route.won for route in routes.values()),
            "refused": sum(route.refused for route in routes.values()),
            "late_seconds": {name: _rounded(route.latency.late()) for name, route in routes.items()},
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
