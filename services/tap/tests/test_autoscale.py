"""How many workers a pool should have; each figure was worked out by hand."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.tap.autoscale import AGE, MOST_POOLS, MOST_WORKERS, Autoscale, desired
from rabbitbal.tap.fleet import WINDOW, Pool

POOL = Pool(workers=2, drained=0, slots=8, running=0, done=0, busy=0, done_rate=0.0, slot_time=0.2)


def needed(**known: Any) -> int:
    usual: dict[str, Any] = {
        "arrival_rate": 0.0,
        "occupied": 0.0,
        "slot_time": 0.2,
        "slots_per_worker": 4.0,
        "waiting": 0,
        "workers": 2,
        "utilisation": 0.8,
        "backlog": 10.0,
    }
    return desired(**(usual | known))[0]


@pytest.mark.parametrize(
    ("known", "workers"),
    [
        # 40/s x 0.2 s = 8 slots; 8 / (0.8 x 4) = 2.5
        ({"arrival_rate": 40.0}, 3),
        # 32/s x 0.2 s = 6.4 slots; 6.4 / 3.2 = 2, and not 3 for a rounding error
        ({"arrival_rate": 32.0}, 2),
        # 100 x 0.2 s = 20 s of slots; in 10 s with 4 slots: 0.5
        ({"waiting": 100}, 1),
        # 2.5 for the load and 0.5 for the backlog: 3; one more that waits makes it 4
        ({"arrival_rate": 40.0, "waiting": 100}, 3),
        ({"arrival_rate": 40.0, "waiting": 101}, 4),
        # 1000 x 0.2 s / (2 s x 4) = 25
        ({"waiting": 1000, "backlog": 2.0}, 25),
        # All slots are occupied by requests that outlast the window: 8 / 3.2
        ({"occupied": 8.0, "slot_time": None}, 3),
        # The larger of 1/s x 0.2 s and 8 occupied slots
        ({"arrival_rate": 1.0, "occupied": 8.0}, 3),
        ({"arrival_rate": 40.0, "utilisation": 1.0}, 2),
        # Nothing to do
        ({}, 0),
        ({"slot_time": None, "slots_per_worker": None, "workers": 0}, 0),
        # From zero: something waits, or comes, and nothing is known
        ({"waiting": 1, "slot_time": None, "slots_per_worker": None, "workers": 0}, 1),
        ({"arrival_rate": 0.1, "slot_time": None, "slots_per_worker": None, "workers": 0}, 1),
        ({"waiting": 1, "workers": 0}, 1),
        # From zero, with what was known: 500 x 0.2 s / (10 s x 4) = 2.5
        ({"waiting": 500, "workers": 0}, 3),
        # Something waits, and how long it takes nobody knows: those that there are
        ({"waiting": 50, "slot_time": None, "workers": 5}, 5),
        ({"arrival_rate": 1e12, "slot_time": 1e12}, MOST_WORKERS),
    ],
)
def test_the_formula(known: dict[str, Any], workers: int) -> None:
    """Load and backlog, rounded up."""
    assert needed(**known) == workers


numbers = st.floats(0, 1e15)


@given(
    numbers,
    numbers,
    st.none() | numbers,
    st.none() | st.floats(0, 1e6),
    st.integers(0, 1 << 62),
    st.integers(0, 2000),
    st.floats(0.05, 1),
    st.floats(0.1, 3600),
)
def test_it_is_a_number_of_workers_whatever_is_told(
    rate: float,
    occupied: float,
    slot_time: float | None,
    slots: float | None,
    waiting: int,
    workers: int,
    utilisation: float,
    backlog: float,
) -> None:
    """Never less than none, never not a number, and one at least where something waits."""
    found, *terms = desired(
        arrival_rate=rate,
        occupied=occupied,
        slot_time=slot_time,
        slots_per_worker=slots,
        waiting=waiting,
        workers=workers,
        utilisation=utilisation,
        backlog=backlog,
    )
    assert 0 <= found <= MOST_WORKERS
    assert all(math.isfinite(term) for term in terms)
    assert found >= 1 or not waiting


def pool(done: int, running: int, **more: Any) -> Pool:
    return Pool(**({name: getattr(POOL, name) for name in Pool.__slots__} | {"done": done, "running": running} | more))


def test_arrivals_are_what_was_done_what_runs_and_what_waits() -> None:
    """20 a second come, 10 a second are done: the rest waits."""
    scale = Autoscale(0.8, 10.0)
    for second in range(61):
        scale.sample(second, {"default": pool(second * 10, 8)}, {"default": second * 10})
    need = scale.needs()["default"]
    assert need.arrival_rate == pytest.approx(20)
    assert (need.occupied, need.load) == (8, 8)
    # 8 / 3.2 = 2.5, and 600 x 0.2 / 40 = 3
    assert (need.for_load, need.for_backlog, need.desired) == (2.5, 3.0, 6)


def test_the_window_forgets() -> None:
    """A rush that is over is over half a minute later."""
    scale = Autoscale(0.8, 10.0)
    for second in range(100):
        scale.sample(second, {"default": pool(min(second, 20) * 100, 8 if second < 20 else 0)}, {"default": 0})
        if second == 20:
            assert scale.needs()["default"].arrival_rate == pytest.approx(100, rel=0.01)
            # 100/s x 0.2 s / 3.2
            assert scale.needs()["default"].desired == 7
    assert scale.needs()["default"].desired == 0


def test_the_first_request_is_no_rush() -> None:
    """One within the first second of a window is not sixty a minute."""
    scale = Autoscale(0.8, 10.0)
    scale.sample(0, {"default": pool(0, 0)}, {"default": 0})
    scale.sample(1, {"default": pool(1, 0)}, {"default": 0})
    assert scale.needs()["default"].arrival_rate == 0.2
    assert scale.needs()["default"].desired == 1


def test_a_pool_scales_from_zero_by_what_was_known() -> None:
    """Its workers are gone, and so are their figures; 500 wait."""
    scale = Autoscale(0.8, 10.0)
    for second in range(40):
        scale.sample(second, {"default": pool(0, 0)}, {"default": 0})
    for second in range(40, 140):
        scale.sample(second, {}, {"default": 0})
    assert scale.needs()["default"].desired == 0
    scale.sample(140, {}, {"default": 500})
    need = scale.needs()["default"]
    assert (need.workers, need.slot_time, need.slots_per_worker) == (0, 0.2, 4)
    # 500 x 0.2 / 40 = 2.5, and 500 in 30 s: 16.7/s x 0.2 / 3.2 = 1.04
    assert need.desired == 4


def test_a_pool_that_nobody_has_served_asks_for_one() -> None:
    """When something waits in it."""
    scale = Autoscale(0.8, 10.0)
    scale.sample(0, {}, {"reports": 0})
    assert scale.needs()["reports"].desired == 0
    scale.sample(1, {}, {"reports": 3})
    assert scale.needs()["reports"].desired == 1


def test_counts_that_begin_anew_are_no_arrivals() -> None:
    """Nor do they hide those that come then."""
    scale = Autoscale(0.8, 10.0)
    for second in range(10):
        scale.sample(second, {"default": pool(1000 + second * 10, 0)}, {"default": 0})
    for second in range(10, 30):
        scale.sample(second, {"default": pool((second - 10) * 10, 0)}, {"default": 0})
    assert scale.needs()["default"].arrival_rate == pytest.approx(10)


def test_while_the_broker_cannot_be_asked_the_figure_stays() -> None:
    """For as long as the window; then nothing is known of arrivals."""
    scale = Autoscale(0.8, 10.0)
    for second in range(31):
        scale.sample(second, {"default": pool(second * 32, 0)}, {"default": 0})
    assert scale.needs()["default"].desired == 2
    scale.sample(40, {"default": pool(1280, 0)}, {})
    assert scale.needs()["default"].desired == 2
    scale.sample(31 + WINDOW, {"default": pool(3000, 0)}, {})
    assert scale.needs()["default"].arrival_rate == 0


def test_pools_are_bounded_and_forgotten() -> None:
    """Whoever names pools fills a table, and not the memory."""
    scale = Autoscale(0.8, 10.0)
    scale.sample(0, {}, {f"pool-{number}": 0 for number in range(MOST_POOLS + 10)})
    assert len(scale.needs()) == MOST_POOLS
    for second in range(1, 200):
        scale.sample(second, {"pool-0": POOL}, {"pool-0": 0})
    assert len(scale._pools["pool-0"].marks) <= WINDOW + 2
    scale.sample(AGE + 300, {"pool-0": POOL}, {})
    assert set(scale.needs()) == {"pool-0"}


def test_the_answer_has_the_inputs_beside_the_result() -> None:
    """So that whoever doubts it can work it out."""
    scale = Autoscale(0.5, 20.0)
    scale.sample(0, {"default": pool(0, 4)}, {"default": 100})
    found = scale.answer()
    assert (found["window_seconds"], found["utilisation"], found["backlog_seconds"]) == (30, 0.5, 20)
    need = found["pools"]["default"]
    # 4 / (0.5 x 4) = 2, and 100 x 0.2 / (20 x 4) = 0.25
    assert (need["for_load"], need["for_backlog"], need["desired"]) == (2.0, 0.25, 3)
    assert (need["workers"], need["slots"], need["running"], need["waiting"]) == (2, 8, 4, 100)
