"""Streamed responses on a real socket: what a client sees of them, whole and broken."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.flow import CHUNK, FIRST_WINDOW, cost
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason
from tests.edge_deployment import GET, LIMITS, Conversation, Deployment, deployed, until

OLD = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
OK = Response(200, [(b"Content-Type", b"text/plain")])


def declared(length: int, body: bytes = b"") -> Response:
    return Response(200, [(b"Content-Length", b"%d" % length)], body)


@pytest.fixture
async def edge() -> AsyncIterator[Deployment]:
    async with deployed(LIMITS) as deployment:
        deployment.backend.answer = lambda request: None
        yield deployment
        deployment.hang_up()
        await until(lambda: not len(deployment.pending))
        assert (deployment.pending._bytes, deployment.pending.prober._watches) == (0, {})


async def begun(edge: Deployment, response: Response, request: bytes = GET) -> Conversation:
    """A conversation whose answer has begun."""
    conversation = await edge.connect()
    number = len(edge.backend.requests)
    conversation.send(request)
    await until(lambda: len(edge.backend.requests) > number)
    edge.backend.head(response)
    return conversation


async def test_pieces_arrive_one_by_one_in_chunks(edge: Deployment) -> None:
    """Each before the next was sent; then the connection goes on."""
    conversation = await begun(edge, replace(OK, body=b"one"))
    head = await conversation.head()
    assert (head.status, head["transfer-encoding"], head["content-length"]) == (200, b"chunked", None)
    assert await conversation.chunk() == b"one"
    for sequence, piece in enumerate((b"two", b"three"), 1):
        edge.backend.piece(sequence, piece)
        assert await conversation.chunk() == piece
    edge.backend.piece(3, b"four", more=False)
    assert [await conversation.chunk(), await conversation.chunk()] == [b"four", b""]
    await until(lambda: edge.backend.ended)
    (event,) = edge.backend.ended
    assert (event.reason, event.status, event.size) == (None, 200, 15)
    assert edge.backend.told(Kind.CANCEL) == []
    edge.backend.answer = lambda request: Response(200, [], b"next")
    assert (await conversation.ask(GET)).body == b"next"


async def test_a_head_arrives_before_any_of_its_body(edge: Deployment) -> None:
    conversation = await begun(edge, OK)
    assert (await conversation.head()).status == 200
    edge.backend.piece(1, b"", more=False)
    assert await conversation.chunks() == b""


async def test_a_declared_length_stays(edge: Deployment) -> None:
    conversation = await begun(edge, declared(6, b"one"))
    head = await conversation.head()
    assert (head["content-length"], head["transfer-encoding"]) == (b"6", None)
    assert await conversation.read(3) == b"one"
    edge.backend.piece(1, b"two", more=False)
    assert await conversation.read(3) == b"two"
    edge.backend.answer = lambda request: Response(200, [], b"next")
    assert (await conversation.ask(GET)).body == b"next"


async def test_an_old_client_gets_a_body_that_ends_with_its_connection(edge: Deployment) -> None:
    """HTTP/1.0 has no chunks."""
    conversation = await begun(edge, replace(OK, body=b"one"), OLD)
    head = await conversation.head()
    assert (head["transfer-encoding"], head["content-length"], head["connection"]) == (None, None, b"close")
    edge.backend.piece(1, b"two", more=False)
    assert await conversation.to_end() == b"onetwo"


async def test_an_old_client_gets_a_declared_length_too(edge: Deployment) -> None:
    conversation = await begun(edge, declared(6, b"one"), OLD)
    assert (await conversation.head())["content-length"] == b"6"
    edge.backend.piece(1, b"two", more=False)
    assert await conversation.to_end() == b"onetwo"


# --- broken


@pytest.mark.parametrize("how", ["told", "gap", "broker"])
async def test_a_broken_stream_never_gets_its_last_chunk(edge: Deployment, how: str) -> None:
    """The client's connection ends in the middle of the body."""
    conversation = await begun(edge, replace(OK, body=b"one"))
    await conversation.head()
    assert await conversation.chunk() == b"one"
    if how == "told":
        edge.backend.piece(1, b"two", more=False, reason=Reason.APP_ERROR)
    elif how == "gap":
        with pytest.raises(ValueError, match="piece 2"):
            edge.backend.piece(2, b"two")
    else:
        edge.pending.broker_lost()
    assert b"0\r\n\r\n" not in await conversation.to_end()
    reasons = {"told": Reason.APP_ERROR, "gap": Reason.BAD_RESPONSE, "broker": Reason.WORKER_LOST}
    await until(lambda: [(event.reason, event.status) for event in edge.backend.ended] == [(reasons[how], 200)])
    assert edge.pending.endings == {reasons[how].value: 1}


async def test_a_broken_stream_of_an_old_client_is_reset(edge: Deployment) -> None:
    """An orderly close would make it look whole."""
    conversation = await begun(edge, replace(OK, body=b"one"), OLD)
    await conversation.head()
    assert await conversation.read(3) == b"one"
    edge.backend.piece(1, b"", more=False, reason=Reason.WORKER_LOST)
    with pytest.raises(ConnectionResetError):
        await conversation.to_end()


async def test_a_body_longer_than_declared_is_cut_off(edge: Deployment) -> None:
    """Nothing of it is taken for the next response."""
    conversation = await begun(edge, declared(5))
    await conversation.head()
    edge.backend.piece(1, b"123456")
    assert await conversation.to_end() == b""
    await until(lambda: [event.reason for event in edge.backend.ended] == [Reason.BAD_RESPONSE])
    await until(lambda: len(edge.backend.told(Kind.CANCEL)) == 1)


@pytest.mark.parametrize("last", [b"67", b""])
async def test_a_client_that_has_all_that_was_declared_waits_for_nobody(edge: Deployment, last: bytes) -> None:
    """Its next request is served while the worker has not said that it was all; what that is concerns it no more."""
    conversation = await begun(edge, declared(5))
    await conversation.head()
    edge.backend.piece(1, b"12345")
    assert await conversation.read(5) == b"12345"
    edge.backend.answer = lambda request: Response(200, [], b"next")
    assert (await conversation.ask(GET)).body == b"next"
    edge.backend.piece(2, last, 0, more=bool(last))
    await until(lambda: [event.reason for event in edge.backend.ended] == [Reason.BAD_RESPONSE if last else None])
    assert (await conversation.ask(GET)).body == b"next"


async def test_a_body_shorter_than_declared_breaks_the_connection(edge: Deployment) -> None:
    conversation = await begun(edge, declared(5))
    await conversation.head()
    edge.backend.piece(1, b"1234", more=False)
    assert await conversation.to_end() == b"1234"
    await until(lambda: [event.reason for event in edge.backend.ended] == [Reason.BAD_RESPONSE])


# --- the client's pace, and its leaving


async def test_a_slow_client_bounds_what_its_worker_may_send(edge: Deployment) -> None:
    """Credit goes out no faster than the client reads, and all of it arrives."""
    conversation = await begun(edge, OK)
    await conversation.head()
    await until(lambda: edge.backend.told(Kind.CREDIT))
    piece = b"a" * CHUNK
    sent, granted = 0, FIRST_WINDOW

    def grant() -> int:
        return max((envelope.credit or 0 for envelope, _ in edge.backend.told(Kind.CREDIT)), default=0)

    # A client that reads nothing: the buffers of two sockets fill up, and then it stands still.
    while True:
        granted = grant()
        while (sent + 1) * cost(piece) <= granted:
            sent += 1
            edge.backend.piece(sent, piece)
        try:
            await until(lambda: grant() > granted, seconds=0.5)  # noqa: B023 - used up before the next turn
        except AssertionError:
            break
        assert sent < 1000, "nothing bounds it"
    reading = asyncio.ensure_future(conversation.chunks())
    await until(lambda: grant() > granted)
    sent += 1
    edge.backend.piece(sent, piece, more=False)
    assert len(await reading) == sent * CHUNK


@pytest.mark.parametrize("request_bytes", [GET, OLD], ids=["chunked", "unframed"])
async def test_a_client_that_hangs_up_cancels_its_stream(edge: Deployment, request_bytes: bytes) -> None:
    """At once, though nothing is sent; it is counted and told once."""
    conversation = await begun(edge, OK, request_bytes)
    await conversation.head()
    conversation.hang_up()
    await until(lambda: len(edge.pending) == 0)
    await until(lambda: len(edge.backend.told(Kind.CANCEL)) == 1)
    await until(lambda: not edge.server.server_state.tasks)
    assert [(event.reason, event.size) for event in edge.backend.ended] == [(Reason.CLIENT_GONE, 0)]
    assert edge.pending.endings == {"client-gone": 1}


async def test_a_client_that_hangs_up_before_the_last_piece_was_not_answered(edge: Deployment) -> None:
    """The body was whole, and nobody was there for it."""
    conversation = await begun(edge, OK)
    await conversation.head()
    conversation.hang_up()
    edge.backend.piece(1, b"all", more=False)
    await until(lambda: len(edge.pending) == 0)
    await until(lambda: edge.backend.ended)
    assert edge.backend.ended[0].reason in (Reason.CLIENT_GONE, None)
    await until(lambda: not edge.server.server_state.tasks)
    assert sum(edge.pending.endings.values()) == 1


# --- pipelines, draining


async def test_a_pipelined_request_waits_for_the_end_of_a_stream(edge: Deployment) -> None:
    conversation = await begun(edge, OK, GET + GET)
    await conversation.head()
    edge.backend.piece(1, b"one")
    assert (await conversation.chunk(), len(edge.backend.requests)) == (b"one", 1)
    edge.backend.answer = lambda request: Response(200, [], b"next")
    edge.backend.piece(2, b"", more=False)
    assert (await conversation.chunk(), (await conversation.answer()).body) == (b"", b"next")


async def test_a_pipelined_request_behind_a_broken_stream_is_not_run(edge: Deployment) -> None:
    """There is no place for its answer."""
    conversation = await begun(edge, OK, GET + GET)
    await conversation.head()
    edge.backend.piece(1, b"", more=False, reason=Reason.APP_ERROR)
    assert await conversation.to_end() == b""
    await until(lambda: not edge.server.server_state.tasks)
    assert len(edge.backend.requests) == 1


async def test_a_connection_that_is_to_close_does_so_behind_its_stream(edge: Deployment) -> None:
    """The server going down does not cut it off."""
    conversation = await begun(edge, OK)
    await conversation.head()
    for connection in list(edge.server.server_state.connections):
        connection.shutdown()
    edge.backend.piece(1, b"one", more=False)
    assert await conversation.chunks() == b"one"
    assert await conversation.at_end()
