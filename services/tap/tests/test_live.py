"""Figures of the last five minutes: what counts as a request, and a memory that does not grow."""

import random
from typing import Any

import pytest

from rabbitbal.tap.histogram import Histogram
from rabbitbal.tap.live import MOST_NAMES, OTHERS, SECONDS, Live
from rabbitbal.tap.observation import Observation
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.reasons import Reason

START = 1_000_000.0


def ended(at: float = START, sent: float | None = None, *, redelivered: bool = False, **more: Any) -> Observation:
    envelope = Envelope(Kind.RESPONSE, "c0ffee", "worker-1", sent=None if sent is None else int(sent * 1000))
    seen = Observation(at, envelope, b"", None, redelivered)
    line = {"id": "c0ffee", "status": 200, "reason": None, "attempt": 1, "route": "default", "pool": "default"}
    seen.line = line | {"total_ms": 20, "app_ms": 15.0, "queue_ms": 5.0, "bytes": 100, "request_bytes": 7} | more
    return seen


@pytest.fixture
def live() -> Live:
    return Live(lambda name: False)


def test_a_second_has_its_requests_and_their_percentiles(live: Live) -> None:
    """Counts by second; a second without requests has zeros and no percentiles."""
    for ms in (10, 20, 1000):
        live.see(ended(total_ms=ms))
    live.see(ended(START + 2, status=502, reason=Reason.WORKER_LOST, attempt=2))
    series = live.series(int(START), int(START) + 2)
    assert series["requests"] == [3, 0, 1]
    assert series["failed"] == [0, 0, 1]
    assert series["again"] == [0, 0, 1]
    assert series["total"][0] == [
        pytest.approx(20, rel=0.09),
        pytest.approx(1000, rel=0.09),
        pytest.approx(1000, rel=0.09),
    ]
    assert series["total"][1] == [None, None, None]


def test_now_is_the_last_whole_seconds(live: Live) -> None:
    """Rates and sums over ten of them, the second that is not over left out."""
    for second in range(20):
        for _ in range(5):
            live.see(ended(START + second, pool="reports" if second % 2 else "default"))
    recent = live.recent(START + 19.5)
    assert recent["rate"] == 5.0
    assert {"default", "reports"} == set(recent["pools"])
    assert recent["pools"]["reports"] == {"rate": 2.5, "wait": [pytest.approx(5, rel=0.09)] * 2}
    assert recent["bytes_out"] == 500


def test_a_second_is_forgotten_after_five_minutes(live: Live) -> None:
    """Its place in the ring is another's then, and endings are no longer those of it."""
    live.see(ended(reason=Reason.POISON, status=502))
    assert live.endings(START + 1)["reasons"] == {"poison": 1}
    assert live.endings(START + SECONDS)["reasons"] == {}
    live.see(ended(START + SECONDS))
    assert live.series(int(START), int(START))["requests"] == [0]
    assert live.series(int(START) + SECONDS, int(START) + SECONDS)["requests"] == [1]


@pytest.mark.parametrize(
    "line",
    [{"leg": Leg.SHADOW.value}, {"reason": Reason.SUPERSEDED}, {"unmatched": True}],
    ids=lambda line: next(iter(line)),
)
def test_what_is_no_clients_request_is_not_counted(live: Live, line: dict[str, Any]) -> None:
    """A shadow, the loser of a race, an ending without a request."""
    live.see(ended(**line))
    assert live.requests == 0
    assert live.recent(START + 1)["rate"] == 0


def test_an_ending_that_comes_again_counts_once() -> None:
    """After a broken connection the broker brings it once more."""
    known: set[str] = set()
    live = Live(known.__contains__)
    live.see(ended())
    known.add("c0ffee")
    live.see(ended(redelivered=True))
    assert live.requests == 1


def test_names_from_outside_are_bounded(live: Live) -> None:
    """Whoever makes up routes and pools fills one name."""
    for number in range(MOST_NAMES + 50):
        live.see(ended(route=f"route-{number}", pool="p" * 1000 + str(number)))
    recent = live.recent(START + 1)
    assert len(live.series(int(START), int(START))["requests"]) == 1
    assert len(recent["routes"]) <= MOST_NAMES + 1
    live.see(ended(route="one more"))
    assert live._ring[int(START) % SECONDS].routes[OTHERS] == 51


def test_the_tap_says_how_late_it_is(live: Live) -> None:
    """The most of the newest second, and nothing when nothing has come for a while."""
    live.see(ended(START, sent=START - 7.5))
    live.see(ended(START + 0.1, sent=START))
    assert live.lag(START + 0.5) == 7.5
    assert live.lag(START + 3) == 0.0


def test_the_clients_own_mistake_and_leaving_are_no_failure(live: Live) -> None:
    """Statuses from 500 are."""
    for status, reason in ((404, None), (400, Reason.BAD_REQUEST), (499, Reason.CLIENT_GONE), (500, None)):
        live.see(ended(status=status, reason=reason))
    assert live.series(int(START), int(START))["failed"] == [1]


def test_quantiles_are_within_nine_per_cent() -> None:
    """Of values from microseconds to minutes, and the same of two histograms that are merged."""
    pick = random.Random(5)
    values = sorted(10 ** pick.uniform(-1, 5) for _ in range(2000))
    whole, parts = Histogram(), [Histogram(), Histogram()]
    for number, value in enumerate(values):
        whole.add(value)
        parts[number % 2].add(value)
    parts[0].merge(parts[1])
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        exact = values[max(0, int(share * len(values)) - 1)]
        assert whole.quantiles(share) == parts[0].quantiles(share) == [pytest.approx(exact, rel=0.09)]


@pytest.mark.parametrize("value", [0.0, -5.0, float("nan"), float("inf"), 1e300])
def test_no_value_breaks_a_histogram(value: float) -> None:
    """Clocks that differ, and figures from outside."""
    histogram = Histogram()
    histogram.add(value)
    assert histogram.count == 1
    assert histogram.quantiles(0.5) != [None]
