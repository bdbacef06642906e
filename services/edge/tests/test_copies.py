"""One and first: who wins, who is told, what is left. The test is the workers."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rabbitbal.edge import publishing
from rabbitbal.edge.ticket import Ticket
from rabbitbal.routes.policy import Mode, Policy
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire.envelope import Kind, Leg
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason, error_response
from tests.copies_bench import BAD, PLENTY, CopiesBench, Pieces, uploaded
from tests.edge_bench import OK, ORDER, PAYLOAD, ended, turns, until


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CopiesBench]:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.005)
    bench = CopiesBench()
    yield bench
    await bench.assert_all_over()


FIRST = Policy(mode=Mode.FIRST)


async def test_mode_one_is_a_plain_request(bench: CopiesBench) -> None:
    task = bench.run(Policy(), "a")
    await bench.published(1)
    envelope = bench.broker.requests[0].envelope
    assert (envelope.leg, envelope.group) == (None, None)
    bench.answer_to("a")
    assert (await ended(task)).response == OK


async def test_an_upgrade_goes_to_the_first_key_alone(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, upgrade="websocket"))
    await bench.published(1)
    bench.answer_to("a")
    await ended(task)
    assert [sent.key for sent in bench.broker.requests] == ["request.a"]


async def test_copies_have_ids_of_their_own_and_a_group_in_common(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    one, other = (sent.envelope for sent in bench.broker.requests)
    assert {sent.key for sent in bench.broker.requests} == {"request.a", "request.b"}
    assert one.correlation_id != other.correlation_id
    assert one.group == other.group not in (one.correlation_id, other.correlation_id, None)
    assert one.leg is other.leg is Leg.FIRST
    bench.answer_to("a")
    assert (await ended(task)).worker == "w-a"


async def test_the_loser_is_superseded_and_nobody_is_told_who_has_not_claimed_it(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    assert (await ended(task)).worker == "w-b"
    await until(lambda: bench.told_endings() == [(Leg.FIRST, Reason.SUPERSEDED)])
    assert bench.cancels() == []
    # Its worker takes it later, claims it, and is told then.
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a")
    await until(lambda: bench.cancels() == ["w-a"])


async def test_the_loser_that_is_claimed_is_cancelled(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a")
    bench.answer_to("b")
    await ended(task)
    await until(lambda: bench.cancels() == ["w-a"])


async def test_two_good_answers_at_once_are_one(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("a")
    bench.answer_to("b")
    assert (await ended(task)).worker == "w-a", "the key that is named first"
    assert bench.told_endings() == []


async def test_a_bad_answer_waits_for_a_good_one(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("a", BAD)
    await turns(20)
    assert not task.done()
    bench.answer_to("b")
    assert (await ended(task)).worker == "w-b"


async def test_of_bad_answers_an_applications_counts(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b", "c")
    await bench.published(3)
    bench.answer_to("a", error_response(Reason.APP_ERROR), Reason.APP_ERROR)
    bench.answer_to("b", BAD)
    bench.answer_to("c", Response(503, [(b"Content-Length", b"0")]))
    ending = await ended(task)
    assert (ending.worker, ending.response.status, ending.reason) == ("w-b", 500, None)


async def test_one_that_cannot_be_published_is_one_that_failed(bench: CopiesBench) -> None:
    bench.broker.verdicts.extend([Verdict.REJECTED, Verdict.REJECTED])
    ending = await ended(bench.run(FIRST, "a", "b"))
    assert ending.reason is Reason.OVERLOADED


async def test_one_refused_and_one_good_is_good(bench: CopiesBench) -> None:
    bench.broker.verdicts.append(Verdict.REJECTED)
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    assert (await ended(task)).reason is None


async def test_all_frozen_end_at_the_deadline(bench: CopiesBench) -> None:
    ending = await ended(bench.run(FIRST, "a", "b", order=replace(ORDER, timeout=0.05)))
    assert ending.reason is Reason.QUEUE_TIMEOUT


async def test_the_client_leaves_all_copies(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a")
    bench.departure.client_left()
    assert (await ended(task)).reason is Reason.CLIENT_GONE
    await until(lambda: bench.cancels() == ["w-a"])
    assert bench.pending.endings == {"client-gone": 2}


async def test_a_client_that_left_before_anything_began(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await asyncio.sleep(0)
    bench.departure.client_left()
    assert (await ended(task)).reason is Reason.CLIENT_GONE


async def test_a_streamed_winner_and_a_streamed_loser(bench: CopiesBench) -> None:
    """The winner's stream goes on; the loser's is cancelled, though its head had come."""
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.head_to("a")
    bench.head_to("b")
    ending = await ended(task)
    assert ending.stream is not None
    winner, loser = ("a", "b") if ending.worker == "w-a" else ("b", "a")
    await until(lambda: bench.cancels() == [f"w-{loser}"])
    bench.piece_to(winner, b"end")
    assert await ending.stream.read() == b"end"
    assert await ending.stream.read() == b""
    bench.pending.close(ending, None, 8)


async def test_a_task_that_is_cancelled_leaves_nothing(bench: CopiesBench) -> None:
    """The edge goes down."""
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_that_is_frozen_holds_a_bad_answer_back_until_the_deadline(bench: CopiesBench) -> None:
    """Then the bad one is all there is."""
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, timeout=0.1))
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("b"), worker="w-b")
    bench.answer_to("a", BAD)
    ending = await ended(task)
    assert (ending.response, ending.reason) == (BAD, None)
    await until(lambda: bench.told_endings() == [(Leg.FIRST, Reason.WORKER_TIMEOUT)])
    assert bench.cancels() == ["w-b"]


async def test_a_key_that_nobody_is_bound_to_waits_for_nobody(bench: CopiesBench) -> None:
    """The other copy is answered; the one that still looks for a queue looks no more."""
    bench.broker.verdicts.extend([Verdict.UNROUTABLE, Verdict.ROUTED] + [Verdict.UNROUTABLE] * 1000)
    task = bench.run(FIRST, "a", "b")
    await bench.published(4)
    bench.answer_to("b")
    assert (await ended(task)).worker == "w-b"
    number = len(bench.broker.requests)
    await until(lambda: bench.told_endings() == [(Leg.FIRST, Reason.SUPERSEDED)])
    (event,) = bench.broker.told(Kind.ENDED)
    assert event.body == PAYLOAD, "no pool had it, so the tap has not seen it"
    await turns(20)
    assert len(bench.broker.requests) == number


async def test_all_unroutable_is_unroutable(bench: CopiesBench) -> None:
    bench.broker.verdicts.extend([Verdict.UNROUTABLE] * 2)
    ending = await ended(bench.run(FIRST, "a", "b", order=replace(ORDER, route_grace=0.0)))
    assert (ending.reason, ending.response.status) == (Reason.UNROUTABLE, 503)


async def test_the_loser_is_not_published_again(bench: CopiesBench) -> None:
    """Whatever its worker or the broker says."""
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    await ended(task)
    bench.reply(Kind.REDELIVERED, bench.number("a"))
    bench.pending.broker_lost()
    await turns(20)
    assert len(bench.broker.requests) == 2


async def test_a_head_of_the_loser_that_comes_late_is_cancelled(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    await ended(task)
    bench.head_to("a")
    await until(lambda: bench.cancels() == ["w-a"])


async def test_a_client_that_leaves_while_a_bad_answer_waits(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("a", BAD)
    await turns()
    bench.departure.client_left()
    await ended(task)
    await until(lambda: bench.told_endings() == [(Leg.FIRST, Reason.CLIENT_GONE)])
    assert bench.cancels() == [], "its worker says at once that it has it, and hears it then"


async def test_a_client_that_leaves_behind_a_streamed_head(bench: CopiesBench) -> None:
    """The loser has its ending already."""
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.head_to("a")
    ending = await ended(task)
    assert ending.stream is not None
    ending.stream.client_left()
    bench.pending.close(ending, Reason.CLIENT_GONE, 5)
    await until(lambda: len(bench.told_endings()) == 2)
    assert set(bench.told_endings()) == {(Leg.FIRST, Reason.SUPERSEDED), (Leg.FIRST, Reason.CLIENT_GONE)}


async def test_a_bad_stream_that_was_kept_in_reserve_is_closed(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.head_to("a", status=502)
    await turns(20)
    assert not task.done()
    bench.answer_to("b")
    assert (await ended(task)).response == OK
    await until(lambda: bench.cancels() == ["w-a"])


async def test_a_task_that_is_cancelled_with_a_stream_in_reserve(bench: CopiesBench) -> None:
    """The edge goes down."""
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.head_to("a", status=502)
    await turns(20)
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: bench.cancels() == ["w-a"])


async def test_each_copy_counts_against_the_room() -> None:
    """Where there is room for one, one is carried."""
    bench = CopiesBench(buffer_limit=2 * len(PAYLOAD) - 1)
    task = bench.run(FIRST, "a", "b")
    await bench.published(1)
    assert bench.told_endings() == [(Leg.FIRST, Reason.OVERLOADED)]
    bench.answer_to("a")
    assert (await ended(task)).reason is None
    await bench.assert_all_over()


async def test_a_defect_is_not_swallowed(bench: CopiesBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the other copy does not go on for nobody."""
    send = bench.pending._publishing.send

    def failing(ticket: Ticket) -> None:
        if ticket.order.key == "b":
            raise ZeroDivisionError
        send(ticket)

    monkeypatch.setattr(bench.pending._publishing, "send", failing)
    task = bench.run(FIRST, "a", "b")
    with pytest.raises(ZeroDivisionError):
        await ended(task)


async def test_a_winner_has_the_rest_of_its_body(bench: CopiesBench) -> None:
    """Its answer began while the client was still sending; the loser needs it no more."""
    body = Pieces()
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    for key in "ab":
        bench.reply(Kind.CLAIM, bench.number(key), worker=f"w-{key}", credit=PLENTY)
    body.queue.put_nowait(b"one")
    await until(lambda: uploaded(bench, "w-a") == uploaded(bench, "w-b") == b"one")
    bench.head_to("a")
    ending = await ended(task)
    await until(lambda: bench.cancels() == ["w-b"])
    for piece in (b"two", None):
        body.queue.put_nowait(piece)
    await until(lambda: uploaded(bench, "w-a") == b"onetwo")
    assert uploaded(bench, "w-b") == b"one"
    assert not body.closed
    bench.pending.close(ending, None, 5)
    await until(lambda: body.closed)
