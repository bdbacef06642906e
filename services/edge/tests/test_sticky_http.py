"""Sticky routes on a real socket: the partition in the envelope, and the cookie on the answer."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rabbitbal.edge.sticky import partition_of
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.fields import first, values
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason
from tests.edge_deployment import LIMITS, Answer, Deployment, deployed, said, until

TABLE = """\
version: 1
routes:
  - { name: shop, match: { path: /shop }, sticky: { cookie: cart } }
  - { name: known, match: { path: /known }, sticky: { cookie: cart, issue: false } }
  - { name: devices, match: { path: /devices }, to: shop, sticky: { header: X-Device } }
  - { name: clients, match: { path: /clients }, to: shop, sticky: { header: X-Forwarded-For } }
  - { name: default }
"""


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Deployment]:
    path = tmp_path / "routes.yaml"
    path.write_text(TABLE)
    async with deployed(replace(LIMITS, routes=path)) as deployment:
        yield deployment


def get(target: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"GET %s HTTP/1.1" % target, b"Host: a", *fields, b"", b""])


def issued(answer: Answer) -> bytes:
    """The value of the cookie that came with an answer."""
    (text,) = values(answer.fields, b"set-cookie")
    found = re.fullmatch(rb"cart=([0-9a-f]{32}); Path=/; HttpOnly; SameSite=Lax", text)
    assert found is not None, text
    return found[1]


def partitions(edge: Deployment) -> list[str | None]:
    return [envelope.partition for envelope in edge.backend.envelopes]


async def test_a_client_gets_its_cookie_once(edge: Deployment) -> None:
    """All its requests have one partition, the first of them too."""
    value = issued(await edge.ask(get(b"/shop")))
    again = await edge.ask(get(b"/shop/basket", b"Cookie: a=b; cart=" + value))
    assert again["set-cookie"] is None
    assert partitions(edge) == [partition_of(value)] * 2
    assert edge.backend.keys == ["request.shop"] * 2


async def test_the_application_sees_what_the_client_sent(edge: Deployment) -> None:
    """Not the cookie that is only now on its way to it."""
    await edge.ask(get(b"/shop", b"Cookie: a=b"))
    await edge.ask(get(b"/shop", b"Cookie: a=b; cart=1"))
    assert [first(request.fields, b"cookie") for request in edge.backend.requests] == [b"a=b", b"a=b; cart=1"]


async def test_a_cookie_is_secure_behind_tls(edge: Deployment) -> None:
    """A trusted proxy in front says so."""
    answer = await edge.ask(get(b"/shop", b"X-Forwarded-Proto: https"))
    assert (answer["set-cookie"] or b"").endswith(b"; SameSite=Lax; Secure")


async def test_a_stranger_does_not_say_that_it_is_tls(tmp_path: Path) -> None:
    """A browser would not send back what came over plain HTTP and is Secure."""
    path = tmp_path / "routes.yaml"
    path.write_text(TABLE)
    async with deployed(replace(LIMITS, routes=path, trusted_proxies="192.0.2.0/24")) as edge:
        issued(await edge.ask(get(b"/shop", b"X-Forwarded-Proto: https")))


async def test_a_header_may_name_the_session(edge: Deployment) -> None:
    """One that the client sends, or that we make of its connection. No cookie is issued."""
    answers = [
        await edge.ask(get(b"/devices", b"X-Device: 1")),
        await edge.ask(get(b"/devices", b"X-Device: 1")),
        await edge.ask(get(b"/devices")),
        await edge.ask(get(b"/clients", b"X-Forwarded-For: 203.0.113.7")),
        await edge.ask(get(b"/clients")),
    ]
    assert {answer["set-cookie"] for answer in answers} == {None}
    one = partition_of(b"1")
    assert partitions(edge) == [one, one, None, partition_of(b"203.0.113.7"), partition_of(b"127.0.0.1")]


async def test_other_routes_have_no_sessions(edge: Deployment) -> None:
    """And one that issues nothing leaves a client without a value to any worker."""
    for target in (b"/", b"/known"):
        assert (await edge.ask(get(target)))["set-cookie"] is None
    await edge.ask(get(b"/", b"Cookie: cart=1"))
    await edge.ask(get(b"/known", b"Cookie: cart=1"))
    assert partitions(edge) == [None, None, None, partition_of(b"1")]


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 1500,
        b"../../request.#",
        b"*",
        b"31",
        b"-1",
        b"\x80\xff",
        b"a b\tc",
        b'"',
        b"%0d%0aSet-Cookie: evil=1",
        b"=",
    ],
)
async def test_hostile_values_are_hashed_and_no_more(edge: Deployment, value: bytes) -> None:
    """They reach the application as they came, and nothing else of the message but the number of a partition."""
    answer = await edge.ask(get(b"/shop", b"Cookie: cart=" + value))
    assert (answer.status, answer["set-cookie"]) == (200, None)
    (envelope,), (request,) = edge.backend.envelopes, edge.backend.requests
    assert envelope.partition == partition_of(value)
    assert 0 <= int(envelope.partition or "") < 32
    assert edge.backend.keys == ["request.shop"]
    assert first(request.fields, b"cookie") == b"cart=" + value


# --- on which answers


async def test_an_application_that_sets_the_cookie_has_its_own_way(edge: Deployment) -> None:
    """One cookie of a name; others are no matter."""
    edge.backend.answer = lambda request: Response(200, [(b"Set-Cookie", b"cart=app"), (b"Set-Cookie", b"b=1")])
    answer = await edge.ask(get(b"/shop"))
    assert list(values(answer.fields, b"set-cookie")) == [b"cart=app", b"b=1"]
    edge.backend.answer = lambda request: Response(200, [(b"Set-Cookie", b"b=1")])
    answer = await edge.ask(get(b"/shop"))
    assert len(list(values(answer.fields, b"set-cookie"))) == 2


@pytest.mark.parametrize("status", [204, 304, 302, 404, 500])
async def test_every_answer_of_the_application_brings_it(edge: Deployment, status: int) -> None:
    edge.backend.answer = lambda request: Response(status)
    issued(await edge.ask(get(b"/shop")))


async def test_a_streamed_answer_brings_it(edge: Deployment) -> None:
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(get(b"/shop"))
    await until(lambda: edge.backend.requests)
    edge.backend.head(Response(200, [], b"one"))
    edge.backend.piece(1, b"", more=False)
    issued(await conversation.head())
    assert await conversation.chunks() == b"one"


async def test_a_websocket_brings_it(edge: Deployment) -> None:
    """On its 101; it is of the partition already."""
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(get(b"/shop", b"Connection: Upgrade", b"Upgrade: websocket"))
    await until(lambda: edge.backend.requests)
    edge.backend.claim()
    edge.backend.head(Response(101))
    head = await conversation.head()
    assert head.status == 101
    assert partitions(edge) == [partition_of(issued(head))]
    edge.backend.piece(1, b"", more=False)
    assert await conversation.to_end() == b""


async def test_an_error_of_the_application_brings_it(edge: Deployment) -> None:
    """A worker had the request, and may have begun a session."""
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(get(b"/shop"))
    await until(lambda: edge.backend.requests)
    edge.backend.reply(0, Response(500), Reason.APP_ERROR)
    answer = await conversation.answer()
    assert said(answer) == (500, b"app-error")
    issued(answer)


async def test_an_error_of_ours_brings_none(edge: Deployment) -> None:
    """No worker has answered: there is no session to keep."""
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(get(b"/shop", b"Content-Length: 1001"))
    refused = await conversation.answer()
    conversation = await edge.connect()
    conversation.send(get(b"/shop").replace(b"GET", b"POST"))
    await until(lambda: edge.backend.requests)
    # One that nobody has claimed would be published again, whatever its method.
    edge.backend.claim()
    edge.backend._say(Kind.REDELIVERED, 0, b"")
    lost = await conversation.answer()
    assert [said(answer) for answer in (refused, lost)] == [(413, b"body-too-large"), (502, b"worker-lost")]
    assert {answer["set-cookie"] for answer in (refused, lost)} == {None}
