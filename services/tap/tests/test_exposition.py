"""What Prometheus reads: names, labels and numbers, and how many series a stranger can make."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from rabbitbal.runtime.broker import Server
from rabbitbal.tap import gauges as module
from rabbitbal.tap.autoscale import Autoscale
from rabbitbal.tap.depth import Depths
from rabbitbal.tap.fleet import Fleet, Pool
from rabbitbal.tap.gauges import Gauges
from rabbitbal.tap.metrics import BUCKETS, MOST_NAMES, MOST_SERIES, REMEMBERED, Lag, Metrics, router
from rabbitbal.tap.observation import Observation
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.figures import EdgeFigures, PoolFigures, WorkerFigures, encode_figures
from rabbitbal.wire.reasons import Reason

DOCUMENT = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
EDGE = EdgeFigures(at=2000, since=1000, opened=5, closed=3, untold=1, pending=2, oldest=1500)
WORKER = WorkerFigures(2000, 1000, 3, 1, False, 1 << 26, {"default": PoolFigures(4, 0, 2, 10, 5_000_000)})

Sample = dict[tuple[tuple[str, str], ...], float]


def ended(name: str, **more: Any) -> Observation:
    line = {"id": name, "status": 200, "reason": None, "attempt": 1, "route": "default", "pool": "default"}
    line |= {"total_ms": 20, "app_ms": 15.0, "queue_ms": 5.0, "bytes": 100, "request_bytes": 7}
    seen = Observation(time.time(), Envelope(Kind.RESPONSE, name, "worker-1"), b"")
    seen.line = line | more
    return seen


class Tap:
    """The metrics of a tap, and what they ask."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.fleet = Fleet()
        self.autoscale = Autoscale(0.8, 10.0)
        self.depths = Depths(Server("amqp://tap@127.0.0.1:1/", None), "tap-1", {}, list)
        gauges = Gauges(self.fleet, self.depths, self.autoscale, self.metrics.lag, lambda: (10, 2, 1))
        self.metrics.collect_from(gauges.collect)
        self.app = FastAPI()
        self.app.include_router(router(self.metrics))

    def figures(self, name: str, figures: EdgeFigures | WorkerFigures) -> None:
        self.fleet.see(Observation(time.time(), Envelope(Kind.FIGURES, "figures", name), encode_figures(figures)))

    async def text(self) -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://dashboard") as client:
            answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return answer.text

    async def samples(self) -> dict[str, Sample]:
        found: dict[str, Sample] = {}
        for family in text_string_to_metric_families(await self.text()):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found


@pytest.fixture
def tap() -> Tap:
    return Tap()


def of(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


async def test_an_ended_request_is_in_all_that_counts_requests(tap: Tap) -> None:
    """Its route, status and reason, its times in seconds, its bytes, its attempts."""
    tap.metrics.see(ended("one"))
    tap.metrics.see(ended("two", status=502, reason=Reason.WORKER_LOST, attempt=3, pool=None, total_ms=200, bytes=0))
    tap.metrics.see(ended("three", status=None, attempt=7))
    found = await tap.samples()
    requests = found["rabbitbal_requests_total"]
    assert requests[of(route="default", status="2xx", reason="answered")] == 1
    assert requests[of(route="default", status="5xx", reason="worker-lost")] == 1
    assert requests[of(route="default", status="none", reason="answered")] == 1
    route = of(route="default")
    assert found["rabbitbal_request_duration_seconds_count"][route] == 3
    assert found["rabbitbal_request_duration_seconds_sum"][route] == pytest.approx(0.24)
    assert found["rabbitbal_request_duration_seconds_bucket"][of(route="default", le="0.025")] == 2
    assert found["rabbitbal_request_queue_seconds_sum"][of(pool="default")] == pytest.approx(0.01)
    assert found["rabbitbal_request_app_seconds_count"][route] == 3
    assert found["rabbitbal_request_body_bytes_total"][route] == 21
    assert found["rabbitbal_response_body_bytes_total"][route] == 200
    assert found["rabbitbal_request_attempts_total"] == {
        of(attempts="1"): 1,
        of(attempts="3"): 1,
        of(attempts="more"): 1,
    }


async def test_copies_are_counted_as_copies_and_what_no_client_asked_for_as_no_request(tap: Tap) -> None:
    """The loser of a race and a shadow are nobody's requests. Hedges are copies of the leg `hedge`."""
    tap.metrics.see(ended("one", leg=Leg.PRIMARY.value, reason=Reason.SUPERSEDED, status=499))
    tap.metrics.see(ended("two", leg=Leg.HEDGE.value))
    tap.metrics.see(ended("three", leg=Leg.SHADOW.value, reason=Reason.POISON))
    found = await tap.samples()
    assert sum(found["rabbitbal_requests_total"].values()) == 1
    assert found["rabbitbal_copies_total"] == {
        of(leg="primary", ending="superseded"): 1,
        of(leg="hedge", ending="answered"): 1,
        of(leg="shadow", ending="failed"): 1,
    }


async def test_what_was_counted_is_not_counted_again(tap: Tap) -> None:
    """The broker brings it twice after a broken connection; an ending without a request has a count of its own."""
    tap.metrics.see(ended("one"))
    tap.metrics.see(ended("one"))
    tap.metrics.see(ended("two", unmatched=True))
    found = await tap.samples()
    assert sum(found["rabbitbal_requests_total"].values()) == 1
    assert found["rabbitbal_unmatched_endings_total"] == {(): 1}


def test_what_is_remembered_of_endings_is_bounded(tap: Tap) -> None:
    """As many as the broker can bring again."""
    for number in range(REMEMBERED + 100):
        tap.metrics.see(ended(f"r{number}"))
    assert len(tap.metrics._remembered) == len(tap.metrics._newest) == REMEMBERED


async def test_clocks_that_differ_make_no_sum_fall(tap: Tap) -> None:
    """A counter that falls is taken for a restart."""
    tap.metrics.see(ended("one", total_ms=-50, queue_ms=-65.0))
    found = await tap.samples()
    assert found["rabbitbal_request_duration_seconds_sum"][of(route="default")] == 0
    assert found["rabbitbal_request_queue_seconds_sum"][of(pool="default")] == 0


async def test_names_of_strangers_are_told_apart_up_to_a_bound(tap: Tap) -> None:
    """Routes and pools; whatever is beyond it is `other`, and the answer stays as long as it is."""
    for number in range(MOST_NAMES + 50):
        tap.metrics.see(ended(f"r{number}", route=f"route-{number}", pool=str(number) + "p" * 500))
    found = await tap.samples()
    counted = found["rabbitbal_request_duration_seconds_count"]
    assert len(counted) == MOST_NAMES + 1
    assert counted[of(route="other")] == 50
    assert max(len(labels[0][1]) for labels in found["rabbitbal_request_queue_seconds_count"]) == 64
    before = len((await tap.text()).splitlines())
    for number in range(500):
        tap.metrics.see(ended(f"s{number}", route=f"new-{number}", pool=f"new-{number}"))
    assert len((await tap.text()).splitlines()) == before


async def test_combinations_of_labels_are_bounded(tap: Tap) -> None:
    """Of a counter with three of them."""
    number = 0
    for route in range(MOST_NAMES):
        for status in range(100, 600, 100):
            for reason in (None, *list(Reason)[:5]):
                number += 1
                tap.metrics.see(ended(f"r{number}", route=f"route-{route}", status=status, reason=reason))
    found = await tap.samples()
    requests = found["rabbitbal_requests_total"]
    assert len(requests) <= MOST_SERIES + 1
    assert requests[of(route="other", status="other", reason="other")] > 0
    assert sum(requests.values()) == number


async def test_labels_from_outside_cannot_break_the_answer(tap: Tap) -> None:
    """Quotes, line ends and backslashes are the label's own."""
    name = 'a"} 1\nrabbitbal_requests_total{route="\\'
    tap.metrics.see(ended("one", route=name))
    found = await tap.samples()
    assert found["rabbitbal_request_duration_seconds_count"] == {of(route=name): 1}


async def test_edges_and_workers_have_series_as_long_as_they_are_there(tap: Tap) -> None:
    """A worker listens on nothing: this is where its figures are."""
    tap.figures("edge-1", EDGE)
    tap.figures("worker-1", WORKER)
    found = await tap.samples()
    edge, both = of(edge="edge-1"), of(pool="default", worker="worker-1")
    assert (found["rabbitbal_edges"], found["rabbitbal_workers"]) == ({(): 1}, {(): 1})
    assert found["rabbitbal_edge_requests_pending"] == {edge: 2}
    assert found["rabbitbal_edge_oldest_request_seconds"][edge] == pytest.approx(time.time() - 1.5, abs=5)
    assert found["rabbitbal_edge_requests_opened_total"] == {edge: 5}
    assert found["rabbitbal_edge_requests_closed_total"] == {edge: 3}
    assert found["rabbitbal_edge_endings_untold_total"] == {edge: 1}
    worker = of(worker="worker-1")
    assert found["rabbitbal_worker_requests_running"] == {worker: 3}
    assert found["rabbitbal_worker_streams"] == {worker: 1}
    assert found["rabbitbal_worker_drained"] == {worker: 0}
    assert found["rabbitbal_worker_resident_memory_bytes"] == {worker: 1 << 26}
    assert found["rabbitbal_worker_slots"] == {both: 4}
    assert found["rabbitbal_worker_slots_occupied"] == {both: 2}
    assert found["rabbitbal_worker_requests_total"] == {both: 10}
    assert found["rabbitbal_worker_slot_seconds_total"] == {both: 5}
    tap.figures("edge-1", replace(EDGE, at=3000, leaving=True))
    tap.figures("worker-1", replace(WORKER, at=3000, leaving=True))
    text = await tap.text()
    assert "edge-1" not in text
    assert "worker-1" not in text


async def test_a_pool_has_what_the_autoscaler_says(tap: Tap) -> None:
    """Each of its inputs, and the result."""
    tap.figures("worker-1", WORKER)
    tap.autoscale.sample(0, tap.fleet.pools(), {"default": 9})
    found = await tap.samples()
    pool = of(pool="default")
    # 2 occupied slots / (0.8 x 4) = 0.6; 9 wait, and how long they take is not known
    assert found["rabbitbal_desired_workers"] == {pool: 1}
    assert found["rabbitbal_pool_workers"] == {pool: 1}
    assert found["rabbitbal_pool_slots"] == {pool: 4}
    assert found["rabbitbal_pool_slots_occupied"] == {pool: 2}
    assert found["rabbitbal_pool_queue_messages"] == {pool: 9}
    assert "rabbitbal_pool_slot_time_seconds" not in found


async def test_workers_and_pools_beyond_the_bound_are_counted(tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger cannot make the answer as long as it likes; pools that are not told apart are summed."""
    monkeypatch.setattr(module, "MOST_SHOWN", 5)
    for number in range(8):
        tap.figures(f"edge-{number}", EDGE)
        tap.figures(f"worker-{number}", replace(WORKER, pools={f"p{number}": PoolFigures(1, 0, 1, 0, 0)}))
    tap.autoscale.sample(0, {}, {f"pool-{number:03}": 1 for number in range(MOST_NAMES + 7)})
    found = await tap.samples()
    assert found["rabbitbal_edges"] == {(): 8}
    assert len(found["rabbitbal_edge_requests_pending"]) == 5
    assert len(found["rabbitbal_worker_streams"]) == 5
    assert len(found["rabbitbal_worker_slots"]) == 5
    assert found["rabbitbal_fleet_series_left_out"] == {(): 6}
    assert len(found["rabbitbal_pool_queue_messages"]) == MOST_NAMES + 1
    assert found["rabbitbal_pool_queue_messages"][of(pool="other")] == 7
    assert found["rabbitbal_desired_workers"][of(pool="other")] == 7


async def test_the_tap_tells_of_itself(tap: Tap) -> None:
    """What it has read, how late, what waits for it, and what it takes of the machine."""
    seen = Observation(
        time.time(), Envelope(Kind.CLAIM, "c0ffee", "worker-1", sent=int(time.time() * 1000) - 3000), b""
    )
    tap.metrics.see(seen)
    found = await tap.samples()
    assert found["rabbitbal_tap_messages_total"] == {(): 10}
    assert found["rabbitbal_tap_bad_messages_total"] == {(): 2}
    assert found["rabbitbal_tap_defects_total"] == {(): 1}
    assert found["rabbitbal_tap_lag_seconds"][()] == pytest.approx(3, abs=0.5)
    assert "rabbitbal_tap_queue_messages" not in found
    assert found["process_resident_memory_bytes"][()] > 1 << 20
    tap.depths.log = 77
    assert (await tap.samples())["rabbitbal_tap_queue_messages"] == {(): 77}


async def test_others_add_what_they_count(tap: Tap) -> None:
    """The ledger does so."""

    def collect() -> Iterator[Metric]:
        yield GaugeMetricFamily("rabbitbal_something", "Some.", 5)

    tap.metrics.collect_from(collect)
    assert (await tap.samples())["rabbitbal_something"] == {(): 5}


def test_the_lag_is_the_most_of_the_last_two_seconds() -> None:
    """And nothing when nothing was read for a while."""

    def at(second: float, late: float) -> Observation:
        return Observation(second, Envelope(Kind.CLAIM, "c", "w", sent=round((second - late) * 1000)), b"")

    lag = Lag()
    lag.see(at(100.0, 7.0))
    lag.see(at(100.5, 1.0))
    assert lag.now(100.6) == pytest.approx(7)
    lag.see(at(101.0, 2.0))
    assert lag.now(101.1) == pytest.approx(7)
    lag.see(at(102.0, 0.5))
    assert lag.now(102.1) == pytest.approx(2)
    assert lag.now(110.0) == 0
    lag.see(at(120.0, -3.0))
    assert lag.now(120.0) == 0


async def test_every_metric_is_in_the_document(tap: Tap) -> None:
    """By its name, as Prometheus has it, and with all its labels."""
    tap.figures("edge-1", EDGE)
    tap.figures("worker-1", WORKER)
    tap.autoscale.sample(0, {"default": Pool(1, 0, 4, 0, 1, 1, 1.0, 1.0)}, {"default": 1})
    tap.depths.log = 0
    tap.metrics.see(ended("one", leg=Leg.HEDGE.value))
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| `")]
    for family in text_string_to_metric_families(await tap.text()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if name.startswith("process_"):
            continue
        (row,) = [row for row in rows if f"`{name}`" in row]
        labels = set(family.samples[0].labels) - {"le"}
        assert all(f"`{label}`" in row.split("|")[2] for label in labels), name


def test_buckets_are_steps_of_two_to_three() -> None:
    """So no quantile is wrong by more, and the usual deadline is a bound."""
    assert all(1.9 < after / before <= 3 for before, after in pairwise(BUCKETS))
    assert 30.0 in BUCKETS
