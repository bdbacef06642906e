"""What ends a streamed response before its end: the loss of who carries it, and of the request's body."""

import asyncio
from dataclasses import replace

import pytest

from rabbitbal.edge import carrier, publishing, streaming
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.reasons import Reason
from tests.edge_bench import ORDER, Client, Streams, broken, ended, read, turns, until, uploaded


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Streams:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.005)
    monkeypatch.setattr(carrier, "RETRY_PERIOD", 0.005)
    monkeypatch.setattr(streaming, "LAST_WORDS", 0.01)
    return Streams()


async def test_a_worker_that_is_gone_breaks_its_stream(bench: Streams) -> None:
    """It is watched from its head on; the streams of others are not concerned."""
    prober = asyncio.ensure_future(bench.pending.prober.run())
    bench.pending.prober._period = 0.001
    task = await bench.started()
    bench.head(worker="worker-2")
    other = await ended(task)
    ending = await bench.streaming()
    bench.pending._losses.worker_gone("worker-3")
    bench.piece(1, b"a")
    assert await read(ending) == b"a"
    asked = [sent.key for sent in bench.broker.told(Kind.PROBE)]
    await until(lambda: {"worker-1", "worker-2"} <= {sent.key for sent in bench.broker.told(Kind.PROBE)[len(asked) :]})
    bench.pending._losses.worker_gone("worker-1")
    assert await broken(ending) is Reason.WORKER_LOST
    assert other.stream is not None
    assert other.stream.inlet is not None
    assert other.stream.inlet._broken is None
    for one in (ending, other):
        bench.pending.close(one, Reason.WORKER_LOST, 5)
    prober.cancel()
    await turns()
    bench.assert_forgotten()


@pytest.mark.parametrize("how", ["broker", "redelivered", "client"])
async def test_a_stream_ends_with_what_carries_it(bench: Streams, how: str) -> None:
    """What has arrived is had first; nothing is tried again, as the client has a part of it."""
    ending = await bench.streaming()
    bench.piece(1, b"a")
    if how == "broker":
        bench.pending.broker_lost()
    elif how == "redelivered":
        bench.reply(Kind.REDELIVERED, worker="worker-2")
    else:
        bench.tickets[0].client_left()
    expected = Reason.CLIENT_GONE if how == "client" else Reason.WORKER_LOST
    assert (await read(ending), await broken(ending)) == (b"a", expected)
    bench.pending.close(ending, expected, 6)
    await turns()
    assert len(bench.broker.requests) == 1
    bench.assert_forgotten()


async def test_a_stream_has_no_deadline(bench: Streams) -> None:
    ending = await bench.streaming(replace(ORDER, timeout=0.05))
    assert ending.stream is not None
    loop = asyncio.get_running_loop()
    await until(lambda: loop.time() > ending.stream.deadline + 0.05)  # type: ignore[union-attr]
    bench.piece(1, b"a", more=False)
    assert [await read(ending), await read(ending)] == [b"a", b""]
    bench.pending.close(ending, None, 6)


async def test_a_request_that_is_cancelled_as_its_stream_begins_leaves_nothing_behind(bench: Streams) -> None:
    """Nobody would close it."""
    task = await bench.started()
    bench.head()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns()
    assert bench.cancels() == ["worker-1"]
    bench.assert_forgotten()


# --- a stream both ways


async def test_a_response_may_stream_while_its_upload_goes_on(bench: Streams) -> None:
    """The one ends with the other."""
    client = Client()
    task = await bench.started(await uploaded(client))
    bench.reply(Kind.CLAIM, credit=1 << 40)
    client.send(b"up")
    await until(bench.pieces)
    bench.head()
    ending = await ended(task)
    client.send(b"on")
    await until(lambda: [body for _, _, body, _, _ in bench.pieces()] == [b"up", b"on"])
    bench.piece(1, b"", more=False)
    assert await read(ending) == b""
    bench.pending.close(ending, None, 5)
    await turns()
    bench.assert_forgotten()


@pytest.mark.parametrize("how", [Reason.CLIENT_GONE, Reason.BODY_TOO_LARGE, Reason.WORKER_LOST])
async def test_an_upload_that_fails_breaks_the_response(bench: Streams, how: Reason) -> None:
    client = Client()
    task = await bench.started(await uploaded(client, limit=10))
    bench.reply(Kind.CLAIM, credit=1 << 40)
    bench.head()
    ending = await ended(task)
    if how is Reason.CLIENT_GONE:
        client.leave()
    elif how is Reason.BODY_TOO_LARGE:
        client.send(b"a" * 10)
    else:
        bench.broker.on_streams[Kind.BODY].append(Verdict.UNROUTABLE)
        client.send(b"a", more=False)
    assert await broken(ending) is how
    bench.pending.close(ending, how, 5)
    await turns()
    assert bench.cancels() == ["worker-1"]
    bench.assert_forgotten()
