"""An upload whose worker is lost, or a piece of which is: it starts anew, or ends."""

import asyncio

import pytest

from rabbitbal.edge import carrier, publishing
from rabbitbal.edge.spool import SpoolSpace
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.flow import OVERHEAD
from rabbitbal.wire.reasons import Reason
from tests.edge_bench import CUT, ORDER, Bench, Client, ended, turns, until, uploaded

PLENTY = 1 << 40


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.005)
    monkeypatch.setattr(carrier, "RETRY_PERIOD", 0.005)
    return Bench()


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def space() -> SpoolSpace:
    return SpoolSpace(1000, 1000)


async def test_a_lost_upload_starts_anew_for_the_next_worker(bench: Bench, client: Client, space: SpoolSpace) -> None:
    """From byte 0, from message 1, and then it goes on with what the client sends."""
    task = await bench.started(await uploaded(client, space))
    client.send(b"abc")
    bench.reply(Kind.CLAIM, credit=PLENTY)
    await until(bench.pieces)
    bench.reply(Kind.REDELIVERED, worker="worker-2")
    await until(lambda: len(bench.broker.requests) == 2)
    client.send(b"def", more=False)
    await turns()
    bench.reply(Kind.CLAIM, credit=PLENTY, worker="worker-2")
    await until(lambda: len(bench.pieces("worker-2")) == 3)
    assert bench.pieces("worker-2") == [
        (2, 1, b"abc", True, None),
        (2, 2, b"def", True, None),
        (2, 3, b"", False, None),
    ]
    bench.answer(worker="worker-2")
    assert ((await ended(task)).attempt, space.take(1000)) == (2, True)
    bench.assert_forgotten()


async def test_the_worker_of_the_attempt_before_is_told_to_wait_no_longer(
    bench: Bench, client: Client, space: SpoolSpace
) -> None:
    """As it may still be there: by a cancel of that attempt."""
    task = await bench.started(await uploaded(client, space))
    client.send(b"abc")
    bench.reply(Kind.CLAIM, credit=PLENTY)
    await until(bench.pieces)
    bench.broker.go_away()
    bench.pending.broker_lost()
    await turns()
    assert len(bench.pieces()) == 1
    bench.broker.come_back()
    await until(lambda: len(bench.broker.requests) == 2 and bench.cancelled())
    assert bench.cancelled() == [("worker-1", 1)]
    bench.answer()
    await ended(task)
    bench.assert_forgotten()


async def test_a_late_claim_of_a_former_attempt_is_cancelled(bench: Bench, client: Client, space: SpoolSpace) -> None:
    """It would wait for a body for ever; that of a whole request waits for nothing."""
    for order, expected in ((await uploaded(client, space), [("worker-1", 1)]), (ORDER, [])):
        bench.broker.notices.clear()
        task = await bench.started(order)
        bench.reply(Kind.REDELIVERED, worker="worker-2")
        number = len(bench.broker.requests)
        await until(lambda: len(bench.broker.requests) > number)  # noqa: B023 - used up before the next turn
        bench.reply(Kind.CLAIM, attempt=1, credit=PLENTY)
        await turns()
        assert bench.cancelled() == expected
        bench.answer()
        await ended(task)


async def test_a_second_claim_of_an_attempt_is_cancelled(bench: Bench, client: Client, space: SpoolSpace) -> None:
    """A request that was published twice as the first confirm was lost: one worker gets the body."""
    task = await bench.started(await uploaded(client, space))
    bench.reply(Kind.CLAIM, credit=PLENTY)
    bench.reply(Kind.CLAIM, credit=PLENTY, worker="worker-2")
    bench.reply(Kind.CLAIM, credit=PLENTY)
    await until(bench.cancelled)
    assert bench.cancelled() == [("worker-2", 1)]
    bench.answer()
    await ended(task)


async def test_the_word_of_a_former_attempt_that_it_was_broken_off_ends_nothing(
    bench: Bench, client: Client, space: SpoolSpace
) -> None:
    """Its successor is on its way."""
    task = await bench.started(await uploaded(client, space))
    bench.reply(Kind.CLAIM, credit=PLENTY)
    bench.reply(Kind.REDELIVERED, worker="worker-2")
    await until(lambda: len(bench.broker.requests) == 2)
    bench.answer(0, reason=Reason.WORKER_LOST)
    await turns()
    assert not task.done()
    bench.answer()
    assert (await ended(task)).reason is None


async def test_an_answer_of_a_former_attempt_leaves_no_worker_waiting(
    bench: Bench, client: Client, space: SpoolSpace
) -> None:
    """An answer is an answer; whoever was being fed meanwhile is told."""
    task = await bench.started(await uploaded(client, space))
    bench.reply(Kind.CLAIM, credit=PLENTY)
    bench.reply(Kind.REDELIVERED, worker="worker-2")
    await until(lambda: len(bench.broker.requests) == 2)
    bench.reply(Kind.CLAIM, credit=PLENTY, worker="worker-2")
    bench.answer(0)
    assert (await ended(task)).reason is None
    await until(lambda: len(bench.cancelled()) == 2)
    assert bench.cancelled() == [("worker-1", 1), ("worker-2", 2)]
    bench.assert_forgotten()


@pytest.mark.parametrize("keep", [0, 2])
async def test_a_claimed_upload_that_cannot_be_repeated_ends_with_its_worker(
    bench: Bench, client: Client, keep: int
) -> None:
    """As it is not safe to, or as it was too much to keep."""
    task = await bench.started(await uploaded(client, SpoolSpace(keep, keep) if keep else None, once=not keep))
    client.send(b"abc")
    bench.reply(Kind.CLAIM, credit=PLENTY)
    await until(bench.pieces)
    bench.reply(Kind.REDELIVERED, worker="worker-2")
    assert (await ended(task)).reason is Reason.WORKER_LOST
    assert len(bench.broker.requests) == 1
    bench.assert_forgotten()


async def test_an_upload_that_nobody_claimed_was_not_started(bench: Bench, client: Client) -> None:
    """It goes to the next worker even if it may not run twice."""
    task = await bench.started(await uploaded(client, once=True))
    client.send(b"abc", more=False)
    bench.reply(Kind.REDELIVERED)
    await until(lambda: len(bench.broker.requests) == 2)
    bench.reply(Kind.CLAIM, credit=PLENTY)
    await until(lambda: len(bench.pieces()) == 2)
    assert bench.pieces()[0] == (2, 1, b"abc", True, None)
    bench.answer()
    assert (await ended(task)).reason is None
    bench.assert_forgotten()


async def test_a_connection_lost_takes_an_upload_that_may_not_run_twice(bench: Bench, client: Client) -> None:
    """Also one that nobody has claimed: the claim may have been lost with it."""
    task = await bench.started(await uploaded(client, once=True))
    bench.pending.broker_lost()
    assert (await ended(task)).reason is Reason.WORKER_LOST
    bench.assert_forgotten()


async def test_a_claimed_worker_that_is_gone_is_a_loss(bench: Bench, client: Client, space: SpoolSpace) -> None:
    """Known by the prober, long before the broker hands the request out again."""
    prober = asyncio.ensure_future(bench.pending.prober.run())
    bench.pending.prober._period = 0.001
    bench.broker.on_streams[Kind.PROBE].extend([Verdict.UNROUTABLE] * 2)
    task = await bench.started(await uploaded(client, space))
    bench.reply(Kind.CLAIM, credit=PLENTY)
    await until(lambda: len(bench.broker.requests) == 2)
    bench.reply(Kind.REDELIVERED, 0, worker="worker-2")
    await turns(20)
    assert (len(bench.broker.requests), bench.tickets[0].losses) == (2, 1)
    bench.answer()
    await ended(task)
    prober.cancel()
    bench.assert_forgotten()


@pytest.mark.parametrize("verdict", [Verdict.UNROUTABLE, Verdict.REJECTED, CUT], ids=str)
async def test_a_piece_that_does_not_arrive_is_a_loss(
    bench: Bench, client: Client, space: SpoolSpace, verdict: Verdict | Exception
) -> None:
    """Also while the credit is used up: nobody grants any for what did not come."""
    task = await bench.started(await uploaded(client, space))
    bench.broker.on_streams[Kind.BODY].append(verdict)
    client.send(b"abcdef")
    bench.reply(Kind.CLAIM, credit=OVERHEAD + 1)
    await until(lambda: len(bench.broker.requests) == 2)
    await until(bench.cancelled)
    assert bench.cancelled() == [("worker-1", 1)]
    bench.reply(Kind.CLAIM, credit=PLENTY)
    await until(lambda: (2, 1, b"abcdef", True, None) in bench.pieces())
    bench.answer()
    await ended(task)
    bench.assert_forgotten()
