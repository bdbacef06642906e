"""A request that asks for an upgrade that is not given is an ordinary one, to the last byte of its body.

llhttp stops behind the head of such a request, and httptools lets it do so whether a body follows or not: what is
behind must not be taken for the next request (RFC 9112 §11.2).
"""

from collections.abc import AsyncIterator

import pytest

from rabbitbal.wire.fields import first
from rabbitbal.wire.message import Response
from tests.edge_deployment import GET, LIMITS, MIB, Deployment, deployed, said, until

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)


@pytest.fixture
async def edge() -> AsyncIterator[Deployment]:
    async with deployed(LIMITS) as deployment:
        yield deployment


def head(method: bytes, protocol: bytes) -> bytes:
    return b"%s / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %s\r\n" % (method, protocol)


def echo(edge: Deployment) -> None:
    edge.backend.answer = lambda request: Response(200, [], request.body)


@pytest.mark.parametrize("body", [LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("start", [head(b"POST", b"h2c"), head(b"GET", b"websocket"), head(b"PUT", b"websocket")])
@pytest.mark.parametrize("size", [1, 7, MIB])
async def test_its_body_is_a_body(edge: Deployment, start: bytes, body: bytes, size: int) -> None:
    """Wherever the network cuts it, and with another request behind it."""
    echo(edge)
    conversation = await edge.connect()
    data = start + body + GET
    for position in range(0, len(data), size):
        conversation.send(data[position : position + size])
        await conversation.writer.drain()
    assert [(await conversation.answer()).body for _ in range(2)] == [SMUGGLED, b""]
    assert [request.target for request in edge.backend.requests] == [b"/", b"/"]
    assert (await conversation.ask(GET)).status == 200


async def test_its_body_may_be_waited_for(edge: Deployment) -> None:
    """The head alone is not the whole request."""
    echo(edge)
    conversation = await edge.connect()
    conversation.send(head(b"POST", b"h2c") + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert (await conversation.answer()).status == 100
    assert edge.backend.requests == []
    assert (await conversation.ask(b"abc")).body == b"abc"
    assert None is first(edge.backend.requests[0].fields, b"upgrade")


async def test_its_trailer_is_none_of_its_fields(edge: Deployment) -> None:
    conversation = await edge.connect()
    body = b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nAuthorization: evil\r\n\r\n"
    assert (await conversation.ask(head(b"POST", b"h2c") + body)).status == 200
    (request,) = edge.backend.requests
    assert (request.body, first(request.fields, b"authorization")) == (b"a", None)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
    ],
)
async def test_its_framing_is_checked(edge: Deployment, framing: bytes) -> None:
    """As that of any other."""
    conversation = await edge.connect()
    answer = await conversation.ask(head(b"POST", b"h2c") + framing + b"\r\n0\r\n\r\n" + SMUGGLED)
    assert said(answer) == (400, b"bad-request")
    assert await conversation.at_end()
    assert edge.backend.requests == []


async def test_it_may_be_the_last_of_its_connection(edge: Deployment) -> None:
    echo(edge)
    conversation = await edge.connect()
    data = head(b"POST", b"h2c").replace(b"Upgrade\r\nUp", b"close, Upgrade\r\nUp") + b"Content-Length: 1\r\n\r\na"
    answer = await conversation.ask(data)
    assert (answer.body, answer["connection"]) == (b"a", b"close")
    assert await conversation.at_end()


async def test_it_may_wait_for_its_turn(edge: Deployment) -> None:
    """Pipelined, with its body behind it."""
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(GET + head(b"POST", b"h2c") + LENGTH + GET)
    await until(lambda: len(edge.backend.requests) == 1)
    echo(edge)
    edge.backend.reply(0, Response(200, [], b"one"))
    assert [(await conversation.answer()).body for _ in range(3)] == [b"one", SMUGGLED, b""]
    assert len(edge.backend.requests) == 3
