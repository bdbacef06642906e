"""What the requests of the last five minutes were like, second by second, in a ring that never grows.

A second is that in which the tap read of the ending: a tap that lags shows late what it shows, and says by how much.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rabbitbal.tap.histogram import Histogram
from rabbitbal.tap.observation import Observation
from rabbitbal.wire.envelope import Leg
from rabbitbal.wire.reasons import Reason

SECONDS = 300
# What the page calls now: long enough that a percentile means something, short enough that it moves.
RECENT = 10
MOST_NAMES = 32
"""Routes, and pools, that are told apart in a second. The others are one."""
OTHERS = "(others)"
_LONGEST = 64


@dataclass(slots=True)
class Second:
    """What ended in it."""

    at: int = -1
    """Its number since the Unix epoch."""
    requests: int = 0
    failed: int = 0
    """Those that Rabbitbal had to end, or whose status says that the server failed."""
    again: int = 0
    """Those that took more than one attempt."""
    bytes_in: int = 0
    bytes_out: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)
    pools: Counter[str] = field(default_factory=Counter)
    total: Histogram = field(default_factory=Histogram)
    queue: Histogram = field(default_factory=Histogram)
    app: Histogram = field(default_factory=Histogram)
    waits: dict[str, Histogram] = field(default_factory=dict)
    """Time in the queue, by pool."""


class Live:
    """The ring. ``known`` tells whether a request's ending has been seen by this tap: after a broken connection the
    broker brings again what was not acknowledged, and it must not count twice."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        self._known = known
        self._ring = [Second() for _ in range(SECONDS)]
        self.requests = 0
        """Since the tap started."""
        self.unmatched = 0
        """Endings whose requests the tap has not seen: they are in no figure."""
        self._lag: tuple[int, float] = (0, 0.0)

    def see(self, seen: Observation) -> None:
        self._late(seen)
        line = seen.line
        if line is None or line.get("leg") == Leg.SHADOW or line.get("reason") == Reason.SUPERSEDED:
            # A copy whose answer is for the tap only, or for nobody, is no client's request.
            return
        if line.get("unmatched"):
            self.unmatched += 1
            return
        if seen.redelivered and self._known(line["id"]):
            return
        self.requests += 1
        self._count(self._second(int(seen.at)), line)

    def lag(self, now: float) -> float:
        """Seconds from the making of a message to its reading: the most in the last two seconds. Clocks of two machines
        may differ, so a little says nothing."""
        second, most = self._lag
        return most if now - second < 2 else 0.0

    def _late(self, seen: Observation) -> None:
        if seen.envelope.sent is None:
            return
        second, late = int(seen.at), max(0.0, seen.at - seen.envelope.sent / 1000)
        self._lag = (second, max(late, self._lag[1]) if self._lag[0] == second else late)

    def _second(self, at: int) -> Second:
        second = self._ring[at % SECONDS]
        if second.at != at:
            second = self._ring[at % SECONDS] = Second(at)
        return second

    def _count(self, second: Second, line: dict[str, Any]) -> None:
        status, reason = line.get("status"), line.get("reason")
        second.requests += 1
        second.reasons[reason or "answered"] += 1
        second.statuses[f"{status // 100}xx" if isinstance(status, int) and 100 <= status < 600 else "none"] += 1
        second.failed += failed(status, reason)
        attempt = line.get("attempt", 1)
        second.attempts[str(attempt) if attempt < 4 else "more"] += 1
        second.again += attempt > 1
        second.bytes_in += line.get("request_bytes") or 0
        second.bytes_out += line.get("bytes") or 0
        second.routes[_name(second.routes, line.get("route"))] += 1
        total, app, queue = line.get("total_ms"), line.get("app_ms"), line.get("queue_ms")
        if total is not None:
            second.total.add(total)
        if app is not None:
            second.app.add(app)
        if queue is not None:
            second.queue.add(queue)
        if line.get("pool") is not None:
            pool = _name(second.pools, line["pool"])
            second.pools[pool] += 1
            if queue is not None:
                second.waits.setdefault(pool, Histogram()).add(queue)

    def series(self, first: int, last: int) -> dict[str, list[Any]]:
        """Seconds from ``first`` to ``last``, both included, as columns. A second without requests has zeros."""
        seconds = [self._at(at) for at in range(max(first, last - SECONDS + 1), last + 1)]
        return {
            "at": [at for at, _ in seconds],
            "requests": [second.requests for _, second in seconds],
            "failed": [second.failed for _, second in seconds],
            "again": [second.again for _, second in seconds],
            "total": [second.total.quantiles(0.5, 0.95, 0.99) for _, second in seconds],
            "queue": [second.queue.quantiles(0.5, 0.95) for _, second in seconds],
            "app": [second.app.quantiles(0.5, 0.95) for _, second in seconds],
        }

    def _at(self, at: int) -> tuple[int, Second]:
        second = self._ring[at % SECONDS]
        return at, second if second.at == at else _NOTHING

    def recent(self, now: float) -> dict[str, Any]:
        """Sums over the last whole seconds."""
        found = _Sum([self._at(at)[1] for at in range(int(now) - RECENT, int(now))])
        return {
            "seconds": RECENT,
            "rate": round(found.requests / RECENT, 1),
            "failed": round(found.failed / RECENT, 2),
            "bytes_in": found.bytes_in // RECENT,
            "bytes_out": found.bytes_out // RECENT,
            "total": found.total.quantiles(0.5, 0.95, 0.99),
            "queue": found.queue.quantiles(0.5, 0.95, 0.99),
            "app": found.app.quantiles(0.5, 0.95, 0.99),
            "pools": {
                name: {"rate": round(count / RECENT, 1), "wait": _waits(found.waits.get(name))}
                for name, count in found.pools.most_common(MOST_NAMES)
            },
            "routes": {name: round(count / RECENT, 1) for name, count in found.routes.most_common(MOST_NAMES)},
        }

    def endings(self, now: float) -> dict[str, Any]:
        """Counts of the whole ring."""
        reasons: Counter[str] = Counter()
        statuses: Counter[str] = Counter()
        attempts: Counter[str] = Counter()
        for at in range(int(now) - SECONDS + 1, int(now) + 1):
            second = self._at(at)[1]
            reasons.update(second.reasons)
            statuses.update(second.statuses)
            attempts.update(second.attempts)
        return {"reasons": reasons, "statuses": statuses, "attempts": attempts}


_NOTHING = Second()


class _Sum(Second):
    """Several seconds in one."""

    def __init__(self, seconds: list[Second]) -> None:
        super().__init__()
        for second in seconds:
            if not second.requests:
                continue
            self.requests += second.requests
            self.failed += second.failed
            self.bytes_in += second.bytes_in
            self.bytes_out += second.bytes_out
            self.routes.update(second.routes)
            self.pools.update(second.pools)
            self.total.merge(second.total)
            self.queue.merge(second.queue)
            self.app.merge(second.app)
            for name, waits in second.waits.items():
                self.waits.setdefault(name, Histogram()).merge(waits)


def failed(status: object, reason: object) -> bool:
    """Whether the server's side failed: neither the client's own mistake nor its leaving is that."""
    return isinstance(status, int) and status >= 500 and (reason is None or reason != Reason.CLIENT_GONE)


def _name(counted: Counter[str], name: object) -> str:
    """Names come from outside: only so many are told apart."""
    text = str(name)[:_LONGEST]
    return text if text in counted or len(counted) < MOST_NAMES else OTHERS


def _waits(histogram: Histogram | None) -> list[float | None]:
    return [None, None] if histogram is None else histogram.quantiles(0.5, 0.95)
