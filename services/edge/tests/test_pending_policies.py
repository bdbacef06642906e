"""What routes ask of a pending request: keys, partitions, persistence; and how a key that is moved is found again."""

import asyncio
import json
from dataclasses import replace
from datetime import datetime
from itertools import islice

import pytest

from rabbitbal.edge import publishing
from rabbitbal.edge.publishing import pauses
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Kind, Leg
from rabbitbal.wire.reasons import Reason
from tests.edge_bench import CUT, ONCE, ORDER, PAYLOAD, Bench, ended, turns, until

PINNED = replace(ONCE, partition="7")
KEPT = replace(ONCE, persistent=True)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_first_looks_for_a_pool_are_quick() -> None:
    """A move is over in milliseconds; a pool that is not there is not asked for too often."""
    assert [round(pause * 1000) for pause in islice(pauses(), 7)] == [10, 20, 40, 80, 100, 100, 100]


async def test_a_key_that_is_moved_is_found_again_at_once(bench: Bench) -> None:
    """Two publishes into the gap cost 30 ms, not 200."""
    loop = asyncio.get_running_loop()
    bench.broker.verdicts.extend([Verdict.UNROUTABLE] * 2)
    started = loop.time()
    task = bench.start()
    await until(lambda: len(bench.broker.requests) == 3)
    assert 0.03 <= loop.time() - started < 0.15
    bench.answer()
    assert (await ended(task)).reason is None
    bench.assert_forgotten()


async def test_a_full_queue_is_not_asked_so_quickly(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second attempt waits for room by the longer period alone."""
    monkeypatch.setattr(publishing, "FIRST_RETRY", 10.0)
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.001)
    task = await bench.started()
    bench.broker.verdicts.extend([Verdict.REJECTED] * 3)
    bench.reply(Kind.REDELIVERED)
    await until(lambda: len(bench.broker.requests) == 5)
    bench.answer()
    assert (await ended(task)).reason is None


async def test_a_request_says_to_whom_it_goes(bench: Bench) -> None:
    """Key, leg, group, partition and persistence are what its route made of it."""
    group = "0" * 32
    task = await bench.started(
        replace(ORDER, key="a.b", leg=Leg.ALL, group=group, partition="7", persistent=True, route="r")
    )
    (sent,) = bench.broker.requests
    bench.answer()
    await ended(task)
    envelope = sent.envelope
    assert (sent.key, envelope.leg, envelope.group, envelope.partition, envelope.persistent, envelope.route) == (
        "request.a.b",
        Leg.ALL,
        group,
        "7",
        True,
        "r",
    )


# --- pinned to a worker


async def test_a_pinned_request_that_nobody_claimed_was_not_started(bench: Bench) -> None:
    """Its worker left with it in hand: the next one gets it, whatever its method."""
    task = await bench.started(PINNED)
    for attempt in range(2, 6):
        bench.reply(Kind.REDELIVERED)
        await until(lambda: len(bench.broker.requests) == attempt)  # noqa: B023 - used up before the next turn
    assert bench.tickets[0].losses == 0
    bench.answer()
    assert (await ended(task)).attempt == 5
    bench.assert_forgotten()


async def test_a_pinned_request_that_was_claimed_may_have_been_started(bench: Bench) -> None:
    task = await bench.started(PINNED)
    bench.reply(Kind.CLAIM)
    bench.reply(Kind.REDELIVERED, worker="worker-2")
    assert (await ended(task)).reason is Reason.WORKER_LOST
    assert len(bench.broker.requests) == 1
    bench.assert_forgotten()


async def test_a_pinned_request_is_given_to_one_worker(bench: Bench) -> None:
    """A second claim, or one of a former attempt, is answered by a cancel: it waits for leave to start."""
    task = await bench.started(PINNED)
    bench.reply(Kind.REDELIVERED)
    await until(lambda: len(bench.broker.requests) == 2)
    bench.reply(Kind.CLAIM, worker="worker-1", attempt=1)
    bench.reply(Kind.CLAIM, worker="worker-2", attempt=2)
    bench.reply(Kind.CLAIM, worker="worker-3", attempt=2)
    await until(lambda: len(bench.cancelled()) == 2)
    assert bench.cancelled() == [("worker-1", 1), ("worker-3", 2)]
    bench.answer(worker="worker-2")
    await ended(task)
    bench.assert_forgotten()


async def test_a_connection_lost_takes_a_pinned_request_that_may_not_run_twice(bench: Bench) -> None:
    """Its claim may have been lost with it."""
    task = await bench.started(PINNED)
    bench.pending.broker_lost()
    assert (await ended(task)).reason is Reason.WORKER_LOST


# --- kept by the broker


async def test_a_kept_request_waits_for_its_answer_when_the_broker_is_lost(bench: Bench) -> None:
    """The queue has it, and it is not published again: it might run twice."""
    task = await bench.started(KEPT)
    bench.broker.go_away()
    bench.pending.broker_lost()
    await turns(20)
    bench.broker.come_back()
    await turns(20)
    assert (task.done(), len(bench.broker.requests)) == (False, 1)
    bench.answer()
    assert (await ended(task)).reason is None
    bench.assert_forgotten()


async def test_a_kept_request_waits_no_longer_than_its_deadline(bench: Bench) -> None:
    """Nobody can say then that it was not run: its answer may have come while this edge was cut off."""
    task = await bench.started(replace(KEPT, timeout=0.05))
    bench.pending.broker_lost()
    assert (await ended(task)).reason is Reason.WORKER_LOST
    bench.assert_forgotten()


async def test_a_request_that_is_not_known_to_be_kept_is_lost_with_the_broker(bench: Bench) -> None:
    """Persistent, but the broker had not said that a queue has it."""
    confirm: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    bench.broker.verdicts.append(confirm)
    task = await bench.started(KEPT)
    bench.pending.broker_lost()
    assert (await ended(task)).reason is Reason.WORKER_LOST
    bench.broker.verdicts.append(CUT)
    assert (await ended(bench.start(KEPT))).reason is Reason.WORKER_LOST
    bench.assert_forgotten()


async def test_a_kept_request_that_may_run_twice_is_published_again(bench: Bench) -> None:
    """As its answer may have been lost, and to wait would cost the client its whole time."""
    task = await bench.started(replace(KEPT, repeatable=True))
    bench.pending.broker_lost()
    await until(lambda: len(bench.broker.requests) == 2)
    bench.answer()
    assert (await ended(task)).attempt == 2


# --- news


async def test_a_notice_is_one_object_with_who_and_when(bench: Bench) -> None:
    bench.pending.notice({"event": "routes.loaded", "routes": 3})
    await until(lambda: bench.broker.notices)
    (sent,) = bench.broker.notices
    said = json.loads(sent.body)
    assert (sent.exchange, sent.key) == (topology.EVENTS, topology.notice_key("edge", "edge-1"))
    assert (sent.envelope.kind, sent.envelope.correlation_id, sent.envelope.app_id) == (Kind.NOTICE, "notice", "edge-1")
    assert (said["event"], said["routes"], said["who"]) == ("routes.loaded", 3, "edge-1")
    assert datetime.fromisoformat(said["when"]).utcoffset() is not None


async def test_superseded_is_no_reason_to_tell_all_workers(bench: Bench) -> None:
    """Whoever takes it later claims it, and hears it then."""
    for leg in Leg:
        bench.broker.notices.clear()
        task = await bench.started(replace(ORDER, leg=leg, group="0" * 32))
        bench.tickets[-1].supersede()
        assert (await ended(task)).reason is Reason.SUPERSEDED
        await until(lambda: bench.broker.told(Kind.ENDED))
        (event,) = bench.broker.told(Kind.ENDED)
        assert (event.envelope.leg, event.envelope.group, event.envelope.status) == (leg, "0" * 32, 499)
        assert event.body == b"" != PAYLOAD
        assert bench.cancels() == []
    bench.assert_forgotten()
