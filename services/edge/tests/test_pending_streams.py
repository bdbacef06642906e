"""Responses whose body comes in pieces: from the head to `close`, and every way they break."""

from dataclasses import replace
from typing import Any

import pytest

from rabbitbal.edge import carrier, publishing, streaming
from rabbitbal.edge.ticket import Order
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.flow import CHUNK, FIRST_WINDOW, WINDOW, cost
from rabbitbal.wire.message import Response, encode_response
from rabbitbal.wire.reasons import Reason
from tests.edge_bench import CUT, HEAD, ORDER, Client, Streams, broken, ended, read, turns, until, uploaded


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Streams:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.005)
    monkeypatch.setattr(carrier, "RETRY_PERIOD", 0.005)
    monkeypatch.setattr(streaming, "LAST_WORDS", 0.01)
    return Streams()


async def test_a_streamed_response_goes_on_until_it_is_closed(bench: Streams) -> None:
    """The caller has its head at once; the ending is told when the client has had it all."""
    ending = await bench.streaming()
    assert (ending.response, ending.reason, ending.worker) == (HEAD, None, "worker-1")
    assert (len(bench.pending), bench.pending.endings) == (1, {})
    bench.piece(1, b"ab")
    bench.piece(2, b"c", more=False)
    assert [await read(ending) for _ in range(3)] == [b"ab", b"c", b""]
    bench.pending.close(ending, None, 8)
    await until(lambda: bench.broker.told(Kind.ENDED))
    (event,) = bench.broker.told(Kind.ENDED)
    told = event.envelope
    assert (event.exchange, told.reason, told.status, told.size, event.body) == (topology.EVENTS, None, 200, 8, b"")
    assert (bench.pending.endings, bench.cancels()) == ({"answered": 1}, [])
    bench.assert_forgotten()


async def test_a_window_is_widened_where_there_is_memory(bench: Streams) -> None:
    """And the memory is given back."""
    ending = await bench.streaming()
    await until(lambda: bench.credits() == [WINDOW])
    assert bench.pending._bytes == len(ORDER.payload) + WINDOW
    bench.pending.close(ending, None, 0)
    await turns()
    bench.assert_forgotten()


async def test_a_window_stays_narrow_without_memory() -> None:
    """The stream goes on within its first credit."""
    bench = Streams(buffer_limit=1000)
    ending = await bench.streaming()
    await turns(20)
    assert bench.credits() == []
    size = FIRST_WINDOW // 2
    bench.piece(1, b"a" * size)
    await read(ending)
    await until(lambda: bench.credits() == [FIRST_WINDOW + cost(b"a" * size)])
    bench.pending.close(ending, None, 0)
    await turns()
    bench.assert_forgotten()


async def test_credit_goes_out_as_the_client_reads(bench: Streams) -> None:
    """And not as pieces arrive: a slow client holds its worker up."""
    ending = await bench.streaming()
    for sequence in range(1, 4):
        bench.piece(sequence, b"a" * CHUNK)
    await turns(20)
    assert bench.credits() == [WINDOW]
    for _ in range(2):
        await read(ending)
    await until(lambda: len(bench.credits()) == 2)
    assert bench.credits()[1] == WINDOW + 2 * cost(b"a" * CHUNK)
    bench.pending.close(ending, None, 0)


async def test_credit_that_the_broker_refuses_is_granted_again(bench: Streams) -> None:
    """The newest counts, so only that is repeated."""
    bench.broker.on_streams[Kind.CREDIT].extend([Verdict.REJECTED] * 3)
    ending = await bench.streaming()
    await until(lambda: len(bench.credits()) == 4)
    bench.pending.close(ending, None, 0)


async def test_credit_that_cannot_be_granted_breaks_the_stream(bench: Streams) -> None:
    """What is on its way gets a moment."""
    bench.broker.on_streams[Kind.CREDIT].append(CUT)
    ending = await bench.streaming()
    assert await broken(ending) is Reason.WORKER_LOST
    bench.pending.close(ending, Reason.WORKER_LOST, 5)
    await turns()
    bench.assert_forgotten()


async def test_a_stream_that_is_closed_before_its_end_is_cancelled(bench: Streams) -> None:
    ending = await bench.streaming()
    bench.piece(1, b"ab")
    bench.pending.close(ending, Reason.CLIENT_GONE, 5)
    await turns()
    (event,) = bench.broker.told(Kind.ENDED)
    told = event.envelope
    assert (told.reason, told.status, told.size) == (Reason.CLIENT_GONE, 200, 5)
    assert (bench.cancels(), bench.pending.endings) == (["worker-1"], {"client-gone": 1})
    bench.assert_forgotten()
    bench.piece(2, b"c")
    await turns()
    assert bench.cancels() == ["worker-1", "worker-1"]


async def test_the_last_piece_may_tell_why(bench: Streams) -> None:
    """The worker has ended it: it is not cancelled."""
    ending = await bench.streaming()
    bench.piece(1, b"ab", more=False, reason=Reason.APP_ERROR)
    assert (await read(ending), await broken(ending)) == (b"ab", Reason.APP_ERROR)
    bench.pending.close(ending, Reason.APP_ERROR, 7)
    await turns()
    assert bench.cancels() == []


@pytest.mark.parametrize("stranger", [{"worker": "worker-2"}, {"attempt": 2}])
async def test_a_piece_from_elsewhere_is_no_part_of_the_body(bench: Streams, stranger: dict[str, Any]) -> None:
    """Another worker's, or another attempt's."""
    ending = await bench.streaming()
    bench.piece(1, b"evil", **stranger)
    bench.piece(1, b"good", more=False)
    assert [await read(ending), await read(ending)] == [b"good", b""]
    assert bench.cancels() == [stranger.get("worker", "worker-1")]
    bench.pending.close(ending, None, 9)


async def test_a_piece_before_any_head_is_answered_with_a_cancel(bench: Streams) -> None:
    task = await bench.started()
    bench.piece(1, b"a")
    await turns()
    assert (task.done(), bench.cancels()) == (False, ["worker-1"])
    bench.answer()
    await ended(task)


@pytest.mark.parametrize("sequence", [1, 3])
async def test_a_piece_out_of_its_order_breaks_the_stream(bench: Streams, sequence: int) -> None:
    ending = await bench.streaming()
    bench.piece(1, b"a")
    with pytest.raises(WireError):
        bench.piece(sequence, b"b")
    assert (await read(ending), await broken(ending)) == (b"a", Reason.BAD_RESPONSE)
    bench.pending.close(ending, Reason.BAD_RESPONSE, 6)
    await turns()
    assert bench.cancels() == ["worker-1"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_second_answer_is_cancelled_where_it_streams(bench: Streams, streamed: bool) -> None:
    """A whole one is only dropped: its worker is through."""
    ending = await bench.streaming()
    (bench.head if streamed else bench.answer)(worker="worker-2")
    await turns()
    assert bench.cancels() == (["worker-2"] if streamed else [])
    bench.pending.close(ending, None, 5)
    await turns()
    bench.assert_forgotten()


async def test_a_late_claim_of_the_worker_that_streams_is_no_reason_to_cancel(bench: Streams) -> None:
    """It crossed its own answer; another worker's is one."""
    ending = await bench.streaming()
    bench.reply(Kind.CLAIM)
    bench.reply(Kind.CLAIM, worker="worker-2")
    await turns()
    assert bench.cancels() == ["worker-2"]
    bench.pending.close(ending, None, 5)


@pytest.mark.parametrize(
    ("order", "response"),
    [
        (replace(ORDER, method="HEAD"), HEAD),
        (ORDER, Response(101)),
        (ORDER, None),
    ],
    ids=["HEAD", "101 unasked", "nonsense"],
)
async def test_a_head_that_nothing_can_follow_is_a_bad_response(
    bench: Streams, order: Order, response: Response | None
) -> None:
    """And its worker is stopped."""
    task = await bench.started(order)
    payload = b"nonsense" if response is None else encode_response(response, more=True)
    with pytest.raises(WireError):
        bench.reply(Kind.RESPONSE, payload=payload, more=True)
    assert (await ended(task)).reason is Reason.BAD_RESPONSE
    assert bench.cancels() == ["worker-1"]
    bench.assert_forgotten()


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
async def test_a_client_that_stops_in_its_body_does_not_keep_a_stream_for_ever(bench: Streams, taken: bool) -> None:
    """The answer has begun, and the worker waits for more. One that takes no more waits for nothing."""
    client = Client()
    task = await bench.started(await uploaded(client, timeout=0.05))
    bench.reply(Kind.CLAIM, credit=1 << 40 if taken else 0)
    bench.head()
    ending = await ended(task)
    if taken:
        assert await broken(ending) is Reason.CLIENT_GONE
        bench.pending.close(ending, Reason.CLIENT_GONE, 0)
    else:
        client.send(b"more")
        bench.piece(1, b"", more=False)
        assert await read(ending) == b""
        bench.pending.close(ending, None, 0)
    await turns()
    bench.assert_forgotten()
