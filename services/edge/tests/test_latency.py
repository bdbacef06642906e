"""What is late, and how much may be sent twice."""

import random
from collections.abc import Callable

import pytest

from rabbitbal.edge.copies.budget import MOST_SAVED, Budget
from rabbitbal.edge.copies.latency import BUCKETS, ENOUGH, FRESH, MEMORY, Latency


def test_a_budget_is_a_share() -> None:
    budget = Budget()
    spent = 0
    for _ in range(10_000):
        budget.earn(0.03)
        spent += budget.spend()
    assert 299 <= spent <= 302
    saver = Budget()
    for _ in range(10_000):
        saver.earn(0.03)
    assert sum(saver.spend() for _ in range(100)) == MOST_SAVED


def test_nothing_is_late_until_enough_is_known() -> None:
    latency = Latency()
    for _ in range(ENOUGH - 1):
        latency.add(0.1)
    assert latency.late() is None
    latency.add(0.1)
    assert latency.late() == pytest.approx(0.1, rel=0.06)


@pytest.mark.parametrize("scale", [0.0005, 0.02, 3.0])
def test_a_quantile_is_near_the_true_one(scale: float) -> None:
    samples = [scale * (1 + (number * 7919 % 1000) / 100) for number in range(2000)]
    latency = Latency()
    for sample in samples:
        latency.add(sample)
    true = sorted(samples)[int(len(samples) * 0.95)]
    assert true * 0.94 <= (latency.late() or 0) <= true * 1.06


def test_a_quantile_follows_what_changes() -> None:
    latency = Latency()
    for _ in range(10 * MEMORY):
        latency.add(0.01)
    for _ in range(3 * MEMORY):
        latency.add(1.0)
    assert (latency.late() or 0) == pytest.approx(1.0, rel=0.06)


def test_another_quantile_counts_from_the_next_samples_on() -> None:
    """A table of routes that is read anew may bring another budget."""
    latency = Latency()
    for number in range(MEMORY):
        latency.add(1.0 if number % 25 == 0 else 0.01)
    assert (latency.late() or 0) == pytest.approx(0.01, rel=0.06)
    latency.quantile = 0.97
    for _ in range(FRESH):
        latency.add(0.01)
    assert (latency.late() or 0) == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize("strange", [0.0, -1.0, 1e-9, 1e9])
def test_strange_times_harm_nothing(strange: float) -> None:
    latency = Latency()
    for _ in range(ENOUGH):
        latency.add(strange)
    assert (latency.late() or 0) > 0


SHAPES: dict[str, Callable[[random.Random], float]] = {
    "flat": lambda source: source.uniform(0.01, 0.5),
    "long tail": lambda source: source.lognormvariate(-3, 1),
    "waiting": lambda source: 0.002 + source.expovariate(20),
    "one in eight ten times slower": lambda source: (
        source.uniform(0.018, 0.022) * (10 if source.random() < 1 / 8 else 1)
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number", [ENOUGH, MEMORY - 1])
def test_a_quantile_is_within_five_per_cent_of_sorted_data(shape: str, number: int) -> None:
    """Above the true one, never below it: what is sent a second time too early is a load for nothing."""
    source = random.Random(7)
    latency = Latency()
    for turn in range(20):
        samples = [SHAPES[shape](source) for _ in range(number)]
        latency = Latency()
        for sample in samples:
            latency.add(sample)
        last = number - number % 20
        rank = -(-last * 95 // 100)
        true = sorted(samples[:last])[rank - 1]
        assert true * (1 - 1e-9) <= (latency.late() or 0) <= true * 1.0501, (turn, true)


def test_memory_is_bounded() -> None:
    """However many samples there are, and the weight of old ones fades."""
    latency = Latency()
    for number in range(20 * MEMORY):
        latency.add(number / 1000)
    assert len(latency._counts) == BUCKETS
    assert sum(latency._counts) == latency._total <= 2 * MEMORY
