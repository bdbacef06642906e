"""The load on the tap and its books: as many requests as were asked for, and the queue filled to its limit."""

from argparse import Namespace

import pytest

from books import planned
from openloop import KINDS
from streaming.memory import Unmeasurable
from tap import length

LISTING = """name\targuments
pool.default\t[{"x-max-length",10000},{"x-overflow","reject-publish"}]
tap.log\t[{"x-max-length-bytes",67108864},{"x-max-length",20000},{"x-overflow","drop-head"}]
tap.log.old\t[{"x-max-length-bytes",67108864}]
"""


def test_the_load_has_exactly_as_many_requests_and_is_that_of_its_seed() -> None:
    """In the order of their arrival, of every kind, at about the rate that was asked for."""
    plan = list(planned(Namespace(requests=2000, rate=100.0, seed=1)))
    assert len(plan) == 2000
    assert plan == list(planned(Namespace(requests=2000, rate=100.0, seed=1)))
    assert plan != list(planned(Namespace(requests=2000, rate=100.0, seed=2)))
    assert [at for at, _, _ in plan] == sorted(at for at, _, _ in plan)
    assert {kind for _, kind, _ in plan} == set(KINDS)
    assert 17 < plan[-1][0] < 23


def test_the_length_of_a_queue_is_what_the_broker_says() -> None:
    """Of messages, not of bytes; a queue without one cannot be filled."""
    assert length(LISTING, "tap.log") == 20000
    for queue in ("tap.log.old", "tap"):
        with pytest.raises(Unmeasurable, match=queue):
            length(LISTING, queue)
