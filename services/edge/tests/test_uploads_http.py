"""Uploads on a real socket: sent on while they come in, refused, answered early, given up."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rabbitbal.edge import upload as module
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.fields import first
from rabbitbal.wire.flow import CHUNK, OVERHEAD
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason
from tests.edge_deployment import GET, LIMITS, MIB, Answer, Deployment, deployed, said, until

DATA = bytes(range(256)) * 4096
SETTINGS = replace(LIMITS, body_limit=2 * MIB, buffer_limit=8 * MIB, spool_limit=2 * MIB, spool_total=2 * MIB)
PUT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
CHUNKED = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
async def edge() -> AsyncIterator[Deployment]:
    async with deployed(SETTINGS) as deployment:
        deployment.backend.answer = lambda request: None
        yield deployment
        deployment.hang_up()
        await until(lambda: not len(deployment.pending))
        assert (deployment.pending._bytes, deployment.pending.prober._watches) == (0, {})
        assert deployment.app._intake._spools._left == SETTINGS.spool_total


async def published(edge: Deployment, number: int = 1) -> None:
    await until(lambda: len(edge.backend.requests) == number)


@pytest.mark.parametrize(
    ("data", "length"), [(PUT % MIB + b"\r\n" + DATA, b"1048576"), (CHUNKED + chunk(DATA) + b"0\r\n\r\n", None)]
)
async def test_a_large_body_follows_its_head(edge: Deployment, data: bytes, length: bytes | None) -> None:
    """Whole, in order, in pieces that a message can carry; with the length that the client declared, if it did."""
    conversation = await edge.connect()
    conversation.send(data)
    await published(edge)
    edge.backend.claim()
    await until(lambda: edge.backend.upload_ended)
    (request,) = edge.backend.requests
    assert first(request.fields, b"content-length") == length
    assert first(request.fields, b"transfer-encoding") is None
    assert 0 < len(request.body) <= CHUNK
    assert request.body + edge.backend.uploaded == DATA
    assert max(len(body) for _, body in edge.backend.told(Kind.BODY)) <= CHUNK
    edge.backend.reply(0, Response(200, [], b"done"))
    assert (await conversation.answer()).body == b"done"
    edge.backend.answer = lambda request: Response(200, [], b"next")
    assert (await conversation.ask(GET)).body == b"next"


async def test_a_body_is_passed_on_while_it_comes_in(edge: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk by chunk, to a worker that is already there."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    conversation = await edge.connect()
    conversation.send(CHUNKED + chunk(b"one"))
    await published(edge)
    edge.backend.claim()
    assert edge.backend.requests[0].body == b"one"
    for body in (b"two", b"three"):
        conversation.send(chunk(body))
        await until(lambda: edge.backend.uploaded.endswith(body))  # noqa: B023 - used up before the next turn
    assert not edge.backend.upload_ended
    conversation.send(b"0\r\n\r\n")
    await until(lambda: edge.backend.upload_ended)
    edge.backend.reply(0, Response(200))
    assert (await conversation.answer()).status == 200


async def test_a_worker_that_does_not_read_stops_the_client(edge: Deployment) -> None:
    """What its credit does not cover stays with the client; a little is on its way."""
    edge.app._intake._settings = replace(SETTINGS, body_limit=64 * MIB)
    conversation = await edge.connect()
    conversation.send(PUT % (32 * MIB) + b"\r\n" + DATA * 32)
    await published(edge)
    edge.backend.claim(credit=OVERHEAD + 10)
    await until(lambda: len(edge.backend.uploaded) == 10)
    connection = next(iter(edge.server.server_state.connections))
    await until(lambda: connection.flow.read_paused)
    assert len(connection.cycle.body) < MIB
    edge.backend.credit(1 << 40)
    await until(lambda: edge.backend.upload_ended)
    assert len(edge.backend.requests[0].body) + len(edge.backend.uploaded) == 32 * MIB
    edge.backend.reply(0, Response(200))
    assert (await conversation.answer()).status == 200


async def test_a_client_that_expects_100_sends_a_large_body(edge: Deployment) -> None:
    """It is told to go on before anybody has claimed."""
    conversation = await edge.connect()
    conversation.send(PUT % MIB + b"Expect: 100-continue\r\n\r\n")
    assert (await conversation.answer()).status == 100
    assert edge.backend.requests == []
    conversation.send(DATA)
    await published(edge)
    edge.backend.claim()
    await until(lambda: edge.backend.upload_ended)
    edge.backend.reply(0, Response(200))
    assert (await conversation.answer()).status == 200


# --- answered before it was read


@pytest.mark.parametrize("claimed", [True, False])
async def test_an_early_answer_leaves_the_connection_usable(edge: Deployment, claimed: bool) -> None:
    """The rest of the body is read and dropped."""
    conversation = await edge.connect()
    conversation.send(PUT % MIB + b"\r\n" + DATA[:100_000])
    await published(edge)
    if claimed:
        edge.backend.claim()
    edge.backend.reply(0, Response(401, [], b"no"))
    assert (await conversation.answer()).status == 401
    pieces = len(edge.backend.streams)
    edge.backend.answer = lambda request: Response(200, [], b"next")
    conversation.send(DATA[100_000:])
    assert (await conversation.ask(GET)).body == b"next"
    assert len(edge.backend.streams) == pieces


async def test_an_answer_may_stream_while_the_body_comes_in(edge: Deployment) -> None:
    """An echo, piece by piece."""
    conversation = await edge.connect()
    conversation.send(CHUNKED + chunk(b"a" * CHUNK))
    await published(edge)
    edge.backend.claim()
    edge.backend.head(Response(200))
    await conversation.head()
    for sequence in range(1, 4):
        conversation.send(chunk(b"%d" % sequence))
        await until(lambda: edge.backend.uploaded[-1:] == b"%d" % sequence)  # noqa: B023 - used up before the next turn
        edge.backend.piece(sequence, b"%d" % sequence)
        assert await conversation.chunk() == b"%d" % sequence
    conversation.send(b"0\r\n\r\n")
    await until(lambda: edge.backend.upload_ended)
    edge.backend.piece(4, b"", more=False)
    assert await conversation.chunk() == b""


async def test_a_streamed_answer_may_end_before_the_body_does(edge: Deployment) -> None:
    """The rest is dropped, and the next request is found behind it."""
    conversation = await edge.connect()
    conversation.send(CHUNKED + chunk(b"a" * CHUNK))
    await published(edge)
    edge.backend.claim()
    edge.backend.head(Response(200, [], b"early"))
    edge.backend.piece(1, b"", more=False)
    await conversation.head()
    assert await conversation.chunks() == b"early"
    edge.backend.answer = lambda request: Response(200, [], b"next")
    conversation.send(chunk(b"b" * CHUNK) + b"0\r\n\r\n")
    assert (await conversation.ask(GET)).body == b"next"
    assert [event.reason for event in edge.backend.ended] == [None]


# --- refused, given up


async def test_a_body_that_turns_out_too_large_ends_its_request(edge: Deployment) -> None:
    """413 while it comes in, and the rest is not waited for: it may have no end."""
    conversation = await edge.connect()
    conversation.send(CHUNKED + chunk(DATA))
    await published(edge)
    edge.backend.claim()
    await until(lambda: len(edge.backend.requests[0].body + edge.backend.uploaded) == MIB)
    conversation.send(chunk(DATA) + chunk(b"a"))
    answer: Answer = await conversation.answer()
    assert (said(answer), answer["connection"]) == ((413, b"body-too-large"), b"close")
    assert await conversation.at_end()
    assert not edge.backend.upload_ended
    await until(lambda: len(edge.backend.told(Kind.CANCEL)) == 1)
    assert edge.pending.endings == {"body-too-large": 1}


@pytest.mark.parametrize("credit", [1 << 40, 0, None], ids=["fed", "waiting", "unclaimed"])
async def test_a_client_that_hangs_up_in_its_upload_cancels_it(edge: Deployment, credit: int | None) -> None:
    conversation = await edge.connect()
    conversation.send(PUT % MIB + b"\r\n" + DATA[:1000])
    await published(edge)
    if credit is not None:
        edge.backend.claim(credit)
    conversation.hang_up()
    await until(lambda: edge.backend.told(Kind.CANCEL))
    await until(lambda: not edge.server.server_state.tasks)
    assert edge.pending.endings == {"client-gone": 1}
    assert not edge.backend.upload_ended


async def test_a_client_that_hangs_up_in_upload_and_answer_ends_once(edge: Deployment) -> None:
    conversation = await edge.connect()
    conversation.send(PUT % MIB + b"\r\n" + DATA[:1000])
    await published(edge)
    edge.backend.claim()
    edge.backend.head(Response(200))
    await conversation.head()
    conversation.hang_up()
    await until(lambda: edge.backend.told(Kind.CANCEL))
    await until(lambda: not edge.server.server_state.tasks)
    assert [event.reason for event in edge.backend.ended] == [Reason.CLIENT_GONE]


async def test_an_upload_is_repeated_from_its_start(edge: Deployment) -> None:
    """The worker was lost in its middle."""
    conversation = await edge.connect()
    conversation.send(PUT % MIB + b"\r\n" + DATA[: MIB // 2])
    await published(edge)
    edge.backend.claim()
    await until(lambda: len(edge.backend.requests[0].body + edge.backend.uploaded) == MIB // 2)
    edge.backend.streams.clear()
    edge.backend._say(Kind.REDELIVERED, 0, b"")
    await published(edge, 2)
    edge.backend.streams.clear()
    edge.backend.claim()
    conversation.send(DATA[MIB // 2 :])
    await until(lambda: edge.backend.upload_ended)
    assert edge.backend.requests[1].body + edge.backend.uploaded == DATA
    assert edge.backend.told(Kind.BODY)[0][0].sequence == 1
    edge.backend.reply(1, Response(200))
    assert (await conversation.answer()).status == 200


async def test_an_upload_without_room_is_refused(edge: Deployment) -> None:
    """And leaves no space of the spool taken."""
    edge.pending._max_pending = 0
    conversation = await edge.connect()
    conversation.send(PUT % MIB + b"\r\n" + DATA[: MIB // 2])
    assert said(await conversation.answer()) == (503, b"overloaded")


async def test_garbage_in_an_upload_ends_it(edge: Deployment) -> None:
    """400 in its place; an answer of the worker would come behind that."""
    conversation = await edge.connect()
    conversation.send(CHUNKED + chunk(b"a" * CHUNK))
    await published(edge)
    edge.backend.claim()
    conversation.send(b"not a size\r\n")
    assert said(await conversation.answer()) == (400, b"bad-request")
    assert await conversation.at_end()
    edge.backend.reply(0, Response(200))
    await until(lambda: not edge.server.server_state.tasks)
    assert edge.pending.endings == {"client-gone": 1}
    assert not edge.backend.upload_ended
