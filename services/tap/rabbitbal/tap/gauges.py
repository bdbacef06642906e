"""What Prometheus is told of edges, workers, pools and the tap itself: as it is when Prometheus looks.

An edge or a worker that leaves, or falls silent, has no series from then on.
"""

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from rabbitbal.tap.autoscale import Autoscale, Need
from rabbitbal.tap.depth import Depths
from rabbitbal.tap.fleet import Fleet
from rabbitbal.tap.metrics import MOST_NAMES, OTHER, Lag
from rabbitbal.wire.figures import PoolFigures

# Of edges, of workers, and of workers' parts in pools: each a series of every metric of theirs. Of more none is shown,
# and they are counted in `rabbitbal_fleet_series_left_out`.
MOST_SHOWN = 1000


class Gauges:
    """Asks the other parts. ``counts`` gives the reader's messages seen, bad, and defects."""

    def __init__(
        self, fleet: Fleet, depths: Depths, autoscale: Autoscale, lag: Lag, counts: Callable[[], tuple[int, int, int]]
    ) -> None:
        self._fleet = fleet
        self._depths = depths
        self._autoscale = autoscale
        self._lag = lag
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        edges, workers = self._fleet.edges, self._fleet.workers
        left_out = max(0, len(edges) - MOST_SHOWN) + max(0, len(workers) - MOST_SHOWN)
        yield GaugeMetricFamily("rabbitbal_edges", "Edges that tell their figures.", len(edges))
        yield GaugeMetricFamily("rabbitbal_workers", "Workers that tell their figures.", len(workers))
        yield from self._of_edges()
        yield from self._of_workers()
        shares = [
            (name, pool, share)
            for name, worker in sorted(workers.items())[:MOST_SHOWN]
            for pool, share in worker.figures.pools.items()
        ]
        left_out += max(0, len(shares) - MOST_SHOWN)
        needs = self._autoscale.needs()
        # Those that were known first: names that somebody makes up drive out none.
        shown = list(dict.fromkeys((*needs, *(pool for _, pool, _ in shares))))[:MOST_NAMES]
        yield from _of_shares(shares[:MOST_SHOWN], shown)
        yield from _of_pools(needs, shown)
        yield GaugeMetricFamily(
            "rabbitbal_fleet_series_left_out", "Edges, workers, and pools of workers beyond the bound.", left_out
        )
        yield from self._of_tap()

    def _of_edges(self) -> Iterator[Metric]:
        found = [(name, edge.figures) for name, edge in sorted(self._fleet.edges.items())[:MOST_SHOWN]]
        now = time.time()
        yield _gauge(
            "rabbitbal_edge_requests_pending",
            "Requests in flight in an edge.",
            ["edge"],
            (([name], figures.pending) for name, figures in found),
        )
        yield _gauge(
            "rabbitbal_edge_oldest_request_seconds",
            "Age of an edge's oldest request.",
            ["edge"],
            (
                ([name], 0.0 if figures.oldest is None else max(0.0, now - figures.oldest / 1000))
                for name, figures in found
            ),
        )
        yield _counter(
            "rabbitbal_edge_requests_opened",
            "Requests that an edge gave to a pool or refused.",
            ["edge"],
            (([name], figures.opened) for name, figures in found),
        )
        yield _counter(
            "rabbitbal_edge_requests_closed",
            "Requests of an edge that ended.",
            ["edge"],
            (([name], figures.closed) for name, figures in found),
        )
        yield _counter(
            "rabbitbal_edge_endings_untold",
            "Endings that an edge could tell nobody.",
            ["edge"],
            (([name], figures.untold) for name, figures in found),
        )

    def _of_workers(self) -> Iterator[Metric]:
        found = [(name, worker.figures) for name, worker in sorted(self._fleet.workers.items())[:MOST_SHOWN]]
        yield _gauge(
            "rabbitbal_worker_requests_running",
            "Requests that a worker has in hand.",
            ["worker"],
            (([name], figures.running) for name, figures in found),
        )
        yield _gauge(
            "rabbitbal_worker_streams",
            "Requests that a worker runs besides its slots.",
            ["worker"],
            (([name], figures.streams) for name, figures in found),
        )
        yield _gauge(
            "rabbitbal_worker_drained",
            "1: the worker takes no requests.",
            ["worker"],
            (([name], figures.drained) for name, figures in found),
        )
        yield _gauge(
            "rabbitbal_worker_resident_memory_bytes",
            "Resident memory of a worker.",
            ["worker"],
            (([name], figures.memory) for name, figures in found),
        )

    def _of_tap(self) -> Iterator[Metric]:
        seen, bad, defects = self._counts()
        if self._depths.log is not None:
            yield GaugeMetricFamily("rabbitbal_tap_queue_messages", "Messages that wait for the tap.", self._depths.log)
        yield GaugeMetricFamily(
            "rabbitbal_tap_lag_seconds", "Age of what the tap reads, the most of late.", self._lag.now(time.time())
        )
        yield CounterMetricFamily("rabbitbal_tap_messages", "Messages that the tap has read.", seen)
        yield CounterMetricFamily(
            "rabbitbal_tap_bad_messages", "Those of them that made no sense.", bad + self._fleet.bad
        )
        yield CounterMetricFamily("rabbitbal_tap_defects", "Times that a part of the tap failed at a message.", defects)
        yield CounterMetricFamily(
            "rabbitbal_tap_figures_turned_away", "Figures that there was no room for.", self._fleet.turned_away
        )


def _of_shares(found: list[tuple[str, str, PoolFigures]], shown: list[str]) -> Iterator[Metric]:
    """Of workers' parts in pools; pools beyond the bound are one."""
    sums: dict[tuple[str, str], list[int]] = {}
    known = frozenset(shown)
    for name, pool, share in found:
        parts = sums.setdefault((name, pool if pool in known else OTHER), [0, 0, 0, 0])
        for number, value in enumerate((share.slots, share.running, share.done, share.busy)):
            parts[number] += value
    labels = ["worker", "pool"]
    yield _gauge(
        "rabbitbal_worker_slots",
        "Slots of a worker in a pool.",
        labels,
        ((list(both), parts[0]) for both, parts in sums.items()),
    )
    yield _gauge(
        "rabbitbal_worker_slots_occupied",
        "Of those, the occupied ones.",
        labels,
        ((list(both), parts[1]) for both, parts in sums.items()),
    )
    yield _counter(
        "rabbitbal_worker_requests",
        "Requests that have left a slot of a worker.",
        labels,
        ((list(both), parts[2]) for both, parts in sums.items()),
    )
    yield _counter(
        "rabbitbal_worker_slot_seconds",
        "Time that slots were occupied for those.",
        labels,
        ((list(both), parts[3] / 1e6) for both, parts in sums.items()),
    )


def _of_pools(needs: dict[str, Need], shown: list[str]) -> Iterator[Metric]:
    """The figures of the autoscaler. Of pools beyond the bound those are summed that make sense as a sum."""
    named = [(name, needs[name]) for name in shown if name in needs]
    others = [needs[name] for name in needs.keys() - frozenset(shown)]
    for metric, text, value in _POOL:
        family = GaugeMetricFamily(f"rabbitbal_{metric}", text, labels=["pool"])
        for name, need in named:
            if (told := value(need)) is not None:
                family.add_metric([name], told)
        if others and metric != "pool_slot_time_seconds":
            family.add_metric([OTHER], sum(value(need) or 0 for need in others))
        yield family


_POOL: tuple[tuple[str, str, Callable[[Need], float | None]], ...] = (
    ("desired_workers", "Workers that a pool should have.", lambda need: need.desired),
    ("pool_workers", "Workers that take requests of a pool.", lambda need: need.workers),
    ("pool_workers_drained", "Workers of a pool that take none.", lambda need: need.drained),
    ("pool_slots", "Slots of those that take requests.", lambda need: need.slots),
    ("pool_slots_occupied", "Occupied slots of a pool.", lambda need: need.running),
    ("pool_queue_messages", "Requests that wait in a pool's queue.", lambda need: need.waiting),
    ("pool_arrivals_per_second", "Requests that come to a pool.", lambda need: need.arrival_rate),
    ("pool_slot_time_seconds", "Mean time that a request occupies a slot.", lambda need: need.slot_time),
)


def _gauge(name: str, text: str, labels: list[str], values: Iterable[tuple[list[str], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for found, value in values:
        family.add_metric(found, value)
    return family


def _counter(name: str, text: str, labels: list[str], values: Iterable[tuple[list[str], float]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for found, value in values:
        family.add_metric(found, value)
    return family
