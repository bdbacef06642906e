"""What Prometheus is told of requests: counted as each ends, and what others know is asked for when it looks.

Nothing listens on a worker, and nobody has to know how many edges there are: all figures are here. A value of a label
that a stranger can choose (a route, a pool: whoever publishes names them) is told apart from others up to a bound, and
is `other` beyond it. docs/metrics.md has each of them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from rabbitbal.tap.observation import Observation
from rabbitbal.wire.envelope import Leg
from rabbitbal.wire.reasons import Reason

# Seconds. A request that does nothing is through in one or two milliseconds, and by default none has more than 30: a
# bound is there, so that what came near its deadline can be told from what is past it. Each is two to two and a half
# times the one before, so no quantile is wrong by more. Time in the queue and in the application have the same ones, to
# be compared with the whole.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MOST_NAMES = 200
OTHER = "other"
# Combinations of labels of the one counter that has three. A route has few of them: five classes of status, and
# a reason seldom.
MOST_SERIES = 4000
# Requests whose endings are remembered. The broker brings what was not acknowledged again when the connection breaks,
# and that is at most what the tap takes at a time.
REMEMBERED = 10_000

_LONGEST = 64

# When each series began would be a series of its own, that nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

T = TypeVar("T")


class Names(Generic[T]):
    """A child of a metric for each value of its label, up to a bound; the others share one."""

    def __init__(self, make: Callable[[str], T], most: int = MOST_NAMES) -> None:
        self._make = make
        self._most = most
        self._known: dict[object, T] = {}

    def __getitem__(self, name: object) -> T:
        found = self._known.get(name)
        if found is None:
            found = self._new(name)
        return found

    def _new(self, name: object) -> T:
        told = OTHER if len(self._known) >= self._most else str(name)[:_LONGEST]
        found = self._known.get(told)
        if found is None:
            found = self._known[told] = self._make(told)
        return found


class _Route:
    """What is counted of a route: its children of several metrics."""

    __slots__ = ("app", "bytes_in", "bytes_out", "duration", "name")

    def __init__(self, metrics: "Metrics", name: str) -> None:
        self.name = name
        self.duration = metrics.duration.labels(name)
        self.app = metrics.app.labels(name)
        self.bytes_in = metrics.bytes_in.labels(name)
        self.bytes_out = metrics.bytes_out.labels(name)


class Metrics:
    """A part of the tap, behind the one that finds access lines."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        own: dict[str, Any] = {"registry": self.registry}
        seconds: dict[str, Any] = {**own, "buckets": BUCKETS}
        self.requests = Counter("rabbitbal_requests", "Requests that ended.", ["route", "status", "reason"], **own)
        self.duration = Histogram(
            "rabbitbal_request_duration_seconds", "From the request to its end.", ["route"], **seconds
        )
        self.queue = Histogram(
            "rabbitbal_request_queue_seconds",
            "Time outside of the application, most of it queued.",
            ["pool"],
            **seconds,
        )
        self.app = Histogram(
            "rabbitbal_request_app_seconds",
            "Time in the application, of a stream until its head.",
            ["route"],
            **seconds,
        )
        self.bytes_in = Counter("rabbitbal_request_body_bytes", "Bytes of requests' bodies.", ["route"], **own)
        self.bytes_out = Counter("rabbitbal_response_body_bytes", "Bytes of responses' bodies.", ["route"], **own)
        self.attempts = Counter(
            "rabbitbal_request_attempts", "Requests that ended, by how often they were published.", ["attempts"], **own
        )
        self.copies = Counter(
            "rabbitbal_copies", "Copies of requests that went to several pools, or twice.", ["leg", "ending"], **own
        )
        self.unmatched = Counter(
            "rabbitbal_unmatched_endings", "Endings whose request the tap has not seen, or saw end before.", **own
        )
        self._routes = Names(lambda name: _Route(self, name))
        self._pools = Names(self.queue.labels)
        self._attempts = Names(self.attempts.labels)
        self._copies: dict[tuple[str, str], Any] = {}
        self._known: dict[tuple[str, int, object], Any] = {}
        self._newest: deque[str] = deque()
        self._remembered: set[str] = set()
        self.lag = Lag()
        ProcessCollector(registry=self.registry)

    def collect_from(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Ask this whenever Prometheus looks. What it raises fails the whole answer."""
        self.registry.register(_Asked(collect))

    def see(self, seen: Observation) -> None:
        self.lag.see(seen)
        line = seen.line
        if line is None:
            return
        if line.get("unmatched"):
            self.unmatched.inc()
            return
        if self._again(line["id"]):
            return
        if (leg := line.get("leg")) is not None:
            self._copy(leg, line.get("reason"))
        if leg == Leg.SHADOW or line.get("reason") == Reason.SUPERSEDED:
            # A copy whose answer is for the tap only, or for nobody, is no client's request.
            return
        self._count(line)

    def _count(self, line: dict[str, Any]) -> None:
        route = self._routes[line.get("route")]
        status, reason = line.get("status"), line.get("reason")
        self._child(route.name, status, reason).inc()
        total, app, queue = line.get("total_ms"), line.get("app_ms"), line.get("queue_ms")
        if total is not None:
            # The clocks of two machines may differ; a sum that falls would look like a restart.
            route.duration.observe(max(0.0, total) / 1000)
        if app is not None:
            route.app.observe(app / 1000)
        if queue is not None and line.get("pool") is not None:
            self._pools[line["pool"]].observe(max(0.0, queue) / 1000)
        if size := line.get("request_bytes"):
            route.bytes_in.inc(size)
        if size := line.get("bytes"):
            route.bytes_out.inc(size)
        attempt = line.get("attempt", 1)
        self._attempts[attempt if attempt < 4 else "more"].inc()

    def _child(self, route: str, status: object, reason: object) -> Any:
        """Of the counter of requests."""
        kind = status // 100 if isinstance(status, int) and 100 <= status < 600 else 0
        child = self._known.get((route, kind, reason))
        if child is None:
            if len(self._known) >= MOST_SERIES:
                return self.requests.labels(OTHER, OTHER, OTHER)
            told = f"{kind}xx" if kind else "none"
            child = self._known[route, kind, reason] = self.requests.labels(route, told, reason or "answered")
        return child

    def _copy(self, leg: object, reason: object) -> None:
        ending = "answered" if reason is None else "superseded" if reason == Reason.SUPERSEDED else "failed"
        child = self._copies.get((str(leg), ending))
        if child is None:
            child = self._copies[str(leg), ending] = self.copies.labels(str(leg), ending)
        child.inc()

    def _again(self, name: str) -> bool:
        """Whether this ending was counted before."""
        if name in self._remembered:
            return True
        self._remembered.add(name)
        self._newest.append(name)
        if len(self._newest) > REMEMBERED:
            self._remembered.discard(self._newest.popleft())
        return False


class Lag:
    """How late the tap reads: the most in the last two seconds of messages."""

    def __init__(self) -> None:
        self._second = 0
        self._most = self._before = 0.0

    def see(self, seen: Observation) -> None:
        if seen.envelope.sent is None:
            return
        second = int(seen.at)
        if second != self._second:
            self._before = self._most if second == self._second + 1 else 0.0
            self._second, self._most = second, 0.0
        late = seen.at - seen.envelope.sent / 1000
        if late > self._most:
            self._most = late

    def now(self, at: float) -> float:
        """In seconds. The clocks of two machines may differ, so a little says nothing."""
        return max(self._most, self._before) if at - self._second < 5 else 0.0


class _Asked(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        yield from self._collect()


def router(metrics: Metrics) -> APIRouter:
    routes = APIRouter()

    @routes.get("/metrics", include_in_schema=False)
    async def show(request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"Content-Type": kind})

    return routes
