"""Upgrades on a real socket: bytes both ways once a worker said 101, and ordinary HTTP where none did."""

from collections.abc import AsyncIterator

import pytest

from rabbitbal.edge import relay
from rabbitbal.runtime.frames import GOING_AWAY
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.fields import first
from rabbitbal.wire.flow import FIRST_WINDOW, OVERHEAD
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason
from tests.edge_deployment import GET, LIMITS, MIB, Conversation, Deployment, deployed, until

FIELDS = b"Host: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\n"
UPGRADE = b"GET /chat HTTP/1.1\r\n" + FIELDS + b"\r\n"
SWITCHED = Response(101, [(b"Sec-WebSocket-Accept", b"y")])


@pytest.fixture
async def edge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Deployment]:
    # Who leaves without a word is not waited for at the end of each test.
    monkeypatch.setattr(relay, "FAREWELL", 0.02)
    async with deployed(LIMITS) as deployment:
        deployment.backend.answer = lambda request: None
        yield deployment
        deployment.hang_up()
        await until(lambda: not len(deployment.pending))
        assert (deployment.pending._bytes, deployment.pending.prober._watches) == (0, {})


async def asked(edge: Deployment, data: bytes = UPGRADE) -> Conversation:
    """A client that has asked for an upgrade, which a worker has claimed."""
    conversation = await edge.connect()
    conversation.send(data)
    await until(lambda: edge.backend.requests)
    edge.backend.claim()
    return conversation


async def switched(edge: Deployment, data: bytes = UPGRADE, first: bytes = b"") -> Conversation:
    conversation = await asked(edge, data)
    edge.backend.head(Response(101, SWITCHED.fields, first))
    head = await conversation.head()
    assert (head.status, head["upgrade"], head["connection"]) == (101, b"websocket", b"Upgrade")
    assert (head["sec-websocket-accept"], head["transfer-encoding"], head["content-length"]) == (b"y", None, None)
    return conversation


async def test_a_request_for_an_upgrade_says_so(edge: Deployment) -> None:
    """In its envelope; the fields are those of this hop. It is claimed before it starts, and cannot be repeated."""
    await asked(edge)
    (envelope,), (request,) = edge.backend.envelopes, edge.backend.requests
    assert (envelope.upgrade, envelope.more, request.target) == ("websocket", True, b"/chat")
    assert (first(request.fields, b"upgrade"), first(request.fields, b"connection")) == (None, None)
    assert first(request.fields, b"sec-websocket-key") == b"x"
    edge.backend.reply(0, Response(200))


async def test_bytes_go_both_ways(edge: Deployment) -> None:
    """Also such as look like HTTP, and what the worker sent with its head."""
    conversation = await switched(edge, first=b"hello")
    assert await conversation.read(5) == b"hello"
    conversation.send(GET)
    await until(lambda: edge.backend.uploaded == GET)
    edge.backend.piece(1, b"\x81\x00HTTP/1.1 200 OK\r\n\r\n")
    assert await conversation.read(21) == b"\x81\x00HTTP/1.1 200 OK\r\n\r\n"
    conversation.send(b"more")
    await until(lambda: edge.backend.uploaded == GET + b"more")
    assert len(edge.backend.requests) == 1


@pytest.mark.parametrize("early", [b"early", GET, b"\x00" * 300_000], ids=["few", "request", "many"])
async def test_bytes_that_came_too_early_are_the_first(edge: Deployment, early: bytes) -> None:
    """The client should have waited; they are no request."""
    conversation = await asked(edge, UPGRADE + early[:3])
    conversation.send(early[3:])
    edge.backend.head(SWITCHED)
    await conversation.head()
    conversation.send(b"late")
    await until(lambda: edge.backend.uploaded == early + b"late")
    assert len(edge.backend.requests) == 1


async def test_a_worker_that_does_not_read_stops_the_client(edge: Deployment) -> None:
    conversation = await edge.connect()
    conversation.send(UPGRADE)
    await until(lambda: edge.backend.requests)
    edge.backend.claim(credit=OVERHEAD + 10)
    edge.backend.head(SWITCHED)
    await conversation.head()
    conversation.send(b"a" * (32 * MIB))
    await until(lambda: len(edge.backend.uploaded) == 10)
    (tunnel,) = edge.server.server_state.connections
    await until(lambda: not tunnel._transport.is_reading())
    assert len(tunnel._received) <= MIB
    edge.backend.credit(1 << 40)
    await until(lambda: len(edge.backend.uploaded) == 32 * MIB, seconds=30)


async def test_a_large_answer_goes_through_a_tunnel(edge: Deployment) -> None:
    """Within the credit that is granted as the client reads."""
    conversation = await switched(edge)
    credit, cost = FIRST_WINDOW, 32_000 + OVERHEAD
    for sequence in range(1, 101):
        while sequence * cost > credit:
            known = credit
            await until(lambda: max(granted(edge), default=0) > known)  # noqa: B023 - used up before the next turn
            credit = max(granted(edge))
        edge.backend.piece(sequence, b"%05d" % sequence * 6400)
        assert await conversation.read(32_000) == b"%05d" % sequence * 6400


def granted(edge: Deployment) -> list[int]:
    return [envelope.credit or 0 for envelope, _ in edge.backend.told(Kind.CREDIT)]


# --- endings


async def test_the_worker_ends_it(edge: Deployment) -> None:
    """The connection is closed behind its last bytes."""
    conversation = await switched(edge)
    edge.backend.piece(1, b"bye", more=False)
    assert await conversation.to_end() == b"bye"
    await until(lambda: edge.backend.ended)
    (event,) = edge.backend.ended
    assert (event.reason, event.status, event.size) == (None, 101, 3)
    assert edge.backend.told(Kind.CANCEL) == []


async def test_the_client_ends_its_direction(edge: Deployment) -> None:
    """The worker hears of it and may still answer."""
    conversation = await switched(edge)
    conversation.send(b"bye")
    conversation.writer.write_eof()
    await until(lambda: edge.backend.upload_ended)
    assert edge.backend.uploaded == b"bye"
    edge.backend.piece(1, b"good ")
    assert await conversation.read(5) == b"good "
    edge.backend.piece(2, b"bye", more=False)
    assert await conversation.to_end() == b"bye"


async def test_a_client_that_hangs_up_is_told_by_the_end_of_its_bytes(
    edge: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application may say its last in peace: it is not cancelled then."""
    monkeypatch.setattr(relay, "FAREWELL", 20.0)
    conversation = await switched(edge)
    conversation.hang_up()
    await until(lambda: edge.backend.upload_ended)
    assert len(edge.pending) == 1
    edge.backend.piece(1, b"to nobody")
    edge.backend.piece(2, b"", more=False)
    await until(lambda: len(edge.pending) == 0)
    assert edge.backend.told(Kind.CANCEL) == []


async def test_an_application_that_does_not_notice_is_cancelled(edge: Deployment) -> None:
    conversation = await switched(edge)
    conversation.hang_up()
    await until(lambda: edge.backend.told(Kind.CANCEL))
    await until(lambda: edge.backend.ended)
    assert edge.backend.ended[0].reason is Reason.CLIENT_GONE


@pytest.mark.parametrize("how", ["told", "broker"])
async def test_a_broken_tunnel_is_closed(edge: Deployment, how: str) -> None:
    conversation = await switched(edge)
    if how == "told":
        edge.backend.piece(1, b"", more=False, reason=Reason.APP_ERROR)
    else:
        edge.pending.broker_lost()
    assert await conversation.to_end() == b""
    expected = Reason.APP_ERROR if how == "told" else Reason.WORKER_LOST
    await until(lambda: [event.reason for event in edge.backend.ended] == [expected])


async def test_a_server_that_goes_down_closes_its_websockets(edge: Deployment) -> None:
    """With 1001, between two frames, and with nothing behind it. The client's answer reaches the application."""
    conversation = await switched(edge, first=b"\x81\x03o")
    for connection in list(edge.server.server_state.connections):
        connection.shutdown()
    edge.backend.piece(1, b"ne\x81\x03two")
    assert await conversation.reader.readexactly(9) == b"\x81\x03one" + GOING_AWAY
    conversation.send(b"bye")
    await until(lambda: edge.backend.uploaded == b"bye")
    edge.backend.piece(2, b"", more=False)
    assert await conversation.to_end() == b""
    await until(lambda: not edge.server.server_state.tasks)


async def test_a_server_that_goes_down_waits_no_longer_than_it_must(
    edge: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a client that does not answer, and a worker that says nothing."""
    monkeypatch.setattr(relay, "PATIENCE", 0.02)
    conversation = await switched(edge)
    for connection in list(edge.server.server_state.connections):
        connection.shutdown()
    assert await conversation.to_end() == GOING_AWAY
    await until(lambda: not edge.server.server_state.tasks)


# --- no upgrade


async def test_a_refusal_is_an_answer_and_the_end(edge: Deployment) -> None:
    """Nobody can tell what the client sent behind its request, so nothing follows."""
    conversation = await asked(edge, UPGRADE + GET)
    edge.backend.reply(0, Response(403, [], b"no"))
    answer = await conversation.answer()
    assert (answer.status, answer.body, answer["connection"]) == (403, b"no", b"close")
    assert await conversation.at_end()
    assert len(edge.backend.requests) == 1


async def test_a_refusal_may_stream(edge: Deployment) -> None:
    conversation = await asked(edge)
    edge.backend.head(Response(200, [], b"one"))
    edge.backend.piece(1, b"two", more=False)
    assert (await conversation.head())["connection"] == b"close"
    assert (await conversation.chunks(), await conversation.at_end()) == (b"onetwo", True)


async def test_a_client_may_leave_before_the_answer(edge: Deployment) -> None:
    conversation = await asked(edge)
    conversation.hang_up()
    await until(lambda: [event.reason for event in edge.backend.ended] == [Reason.CLIENT_GONE])
    await until(lambda: len(edge.backend.told(Kind.CANCEL)) == 1)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\n" + FIELDS + b"\r\n",
        b"GET / HTTP/1.1\r\n" + FIELDS + b"Content-Length: 2\r\n\r\nab",
        b"GET / HTTP/1.1\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + FIELDS.replace(b"WebSocket\r", b"h2c\r", 1) + b"\r\n",
    ],
    ids=["POST", "length", "chunked", "h2c"],
)
async def test_what_cannot_be_upgraded_is_an_ordinary_request(edge: Deployment, request_bytes: bytes) -> None:
    """And the connection goes on."""
    edge.backend.answer = lambda request: Response(200, [], request.body)
    conversation = await edge.connect()
    assert (await conversation.ask(request_bytes)).status == 200
    assert (await conversation.ask(GET)).status == 200
    (envelope, _) = edge.backend.envelopes
    assert (envelope.upgrade, envelope.more) == (None, None)
    assert edge.backend.requests[0].body == (b"ab" if b"ab" in request_bytes else b"")


async def test_a_pipelined_upgrade_waits_for_its_turn(edge: Deployment) -> None:
    conversation = await edge.connect()
    conversation.send(GET + UPGRADE)
    await until(lambda: len(edge.backend.requests) == 1)
    conversation.send(b"early")
    edge.backend.reply(0, Response(200, [], b"one"))
    assert (await conversation.answer()).body == b"one"
    await until(lambda: len(edge.backend.requests) == 2)
    edge.backend.claim()
    edge.backend.head(SWITCHED)
    assert (await conversation.head()).status == 101
    await until(lambda: edge.backend.uploaded == b"early")
    edge.backend.piece(1, b"bye", more=False)
    assert await conversation.to_end() == b"bye"
