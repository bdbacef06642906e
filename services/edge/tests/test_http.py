"""The edge's HTTP, spoken by the real server on a real socket. Behind it the test plays the broker and the worker."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace

import pytest

from rabbitbal.edge.protocol import EdgeProtocol
from rabbitbal.wire.fields import first, values
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason
from tests.edge_deployment import GET, LIMITS, Deployment, deployed, said, until


@pytest.fixture
async def edge() -> AsyncIterator[Deployment]:
    async with deployed(LIMITS) as deployment:
        yield deployment


# --- the ordinary request


async def test_a_request_goes_through_and_its_response_comes_back(edge: Deployment) -> None:
    """Method, target, repeated fields, body; status, repeated fields, body."""
    cookies = [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"X-App", b"yes")]
    edge.backend.answer = lambda request: Response(201, cookies, b"made")
    answer = await edge.ask(
        b"POST /a%2Fb?q=%20&&? HTTP/1.1\r\nHost: example.org\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc"
    )
    (request,) = edge.backend.requests
    assert (request.method, request.target, request.body) == ("POST", b"/a%2Fb?q=%20&&?", b"abc")
    assert (list(values(request.fields, b"x-a")), first(request.fields, b"host")) == ([b"1", b"2"], b"example.org")
    assert (
        answer.status,
        answer.body,
        list(values(answer.fields, b"set-cookie")),
        answer["x-app"],
    ) == (201, b"made", [b"a=1", b"b=2"], b"yes")
    assert (answer["via"], answer["date"] is not None) == (b"1.1 rabbitbal", True)


@pytest.mark.parametrize(
    "target", [b"/?", b"/a?b?c", b"//a", b"/a;b=c", b"/%", b"/a/../b", b"/a%00b", b"/[", b"/?a=b#"]
)
async def test_a_target_goes_through_untouched(edge: Deployment, target: bytes) -> None:
    """Byte by byte; only a fragment, which no client may send, is cut off."""
    await edge.ask(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [target.partition(b"#")[0]] == [request.target for request in edge.backend.requests]


@pytest.mark.parametrize(
    ("method", "extra", "repeatable"),
    [
        (b"GET", b"", True),
        (b"HEAD", b"", True),
        (b"PUT", b"", True),
        (b"DELETE", b"", True),
        (b"OPTIONS", b"", True),
        (b"POST", b"", False),
        (b"PATCH", b"", False),
        (b"POST", b"Idempotency-Key: 8e03978e\r\n", True),
    ],
)
async def test_a_request_says_whether_it_may_run_twice(
    edge: Deployment, method: bytes, extra: bytes, repeatable: bool
) -> None:
    """By its method, or by the key that its client gave it."""
    conversation = await edge.connect()
    conversation.send(method + b" / HTTP/1.1\r\nHost: a\r\n" + extra + b"\r\n")
    await conversation.answer(head_only=True)
    assert [repeatable] == [envelope.repeatable for envelope in edge.backend.envelopes]


async def test_a_connection_serves_one_request_after_another(edge: Deployment) -> None:
    """It is kept alive."""
    conversation = await edge.connect()
    for _ in range(3):
        assert (await conversation.ask(GET)).status == 200
    assert len(edge.backend.requests) == 3


async def test_a_connection_is_closed_when_the_client_says_so(edge: Deployment) -> None:
    """By `Connection: close`, or by speaking HTTP/1.0."""
    for request in (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"):
        conversation = await edge.connect()
        assert (await conversation.ask(request))["connection"] == b"close"
        assert await conversation.at_end()


async def test_a_body_may_be_chunked(edge: Deployment) -> None:
    """It travels with a length, and its framing stays behind."""
    answer = await edge.ask(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
    )
    (request,) = edge.backend.requests
    assert (
        answer.status,
        request.body,
        first(request.fields, b"content-length"),
        first(request.fields, b"transfer-encoding"),
    ) == (200, b"abcdefg", b"7", None)


async def test_a_trailer_never_becomes_a_field(edge: Deployment) -> None:
    """Neither a new one nor one that the head had: not even when all comes in one piece."""
    conversation = await edge.connect()
    answer = await conversation.ask(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
        b"Host: evil\r\nAuthorization: evil\r\n\r\n"
    )
    (request,) = edge.backend.requests
    assert (
        answer.status,
        list(values(request.fields, b"host")),
        first(request.fields, b"authorization"),
    ) == (200, [b"a"], None)
    assert (await conversation.ask(GET)).status == 200


async def test_a_request_may_come_byte_by_byte(edge: Deployment) -> None:
    """Wherever the network cuts it."""
    conversation = await edge.connect()
    data = b"POST /abc HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz"
    for position in range(len(data)):
        conversation.send(data[position : position + 1])
        await conversation.writer.drain()
        await asyncio.sleep(0)
    assert (await conversation.answer()).status == 200
    assert [(request.target, request.body) for request in edge.backend.requests] == [(b"/abc", b"xyz")]


async def test_a_client_that_expects_100_is_told_to_go_on(edge: Deployment) -> None:
    """And the field goes no further: the edge has answered it."""
    conversation = await edge.connect()
    conversation.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert (await conversation.answer()).status == 100
    assert (await conversation.ask(b"abc")).status == 200
    assert None is first(edge.backend.requests[0].fields, b"expect")


async def test_a_body_that_is_too_large_is_not_asked_for(edge: Deployment) -> None:
    """413 instead of 100."""
    conversation = await edge.connect()
    conversation.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
    assert said(await conversation.answer()) == (413, b"body-too-large")
    assert await conversation.at_end()


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_that_has_no_body_is_sent_without(edge: Deployment, status: int) -> None:
    """The next response on the connection is not confused."""
    edge.backend.answer = lambda request: Response(status, [(b"ETag", b'"x"')])
    conversation = await edge.connect()
    answer = await conversation.ask(GET)
    assert (status, None, None, b'"x"') == (
        answer.status,
        answer["content-length"],
        answer["transfer-encoding"],
        answer["etag"],
    )
    edge.backend.answer = lambda request: Response(200, [], b"next")
    assert (await conversation.ask(GET)).body == b"next"


async def test_head_gets_the_length_and_no_body(edge: Deployment) -> None:
    """Whether the application leaves the body out or not, and also of an error."""
    conversation = await edge.connect()
    head = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
    for response in (Response(200, [(b"Content-Length", b"500")]), Response(200, [], b"12345")):
        edge.backend.answer = lambda request, response=response: response  # type: ignore[misc]
        conversation.send(head)
        answer = await conversation.answer(head_only=True)
        assert (200, first(response.fields, b"content-length") or b"5") == (answer.status, answer["content-length"])
    edge.backend.answer = lambda request: None
    conversation.send(head)
    await until(lambda: len(edge.backend.requests) == 3)
    edge.backend.reply(2, Response(500), Reason.APP_ERROR)
    assert (await conversation.answer(head_only=True)).status == 500
    edge.backend.answer = lambda request: Response(200, [], b"next")
    assert (await conversation.ask(GET)).body == b"next"


async def test_an_empty_response_says_so(edge: Deployment) -> None:
    """With a length of zero: the client must not wait for the connection to end."""
    edge.backend.answer = lambda request: Response(200)
    assert (await edge.ask(GET))["content-length"] == b"0"


async def test_a_response_shorter_than_it_declares_is_a_bad_response(edge: Deployment) -> None:
    """502 instead of a body that never ends."""
    edge.backend.answer = lambda request: Response(200, [(b"Content-Length", b"5")])
    assert said(await edge.ask(GET)) == (502, b"bad-response")


async def test_an_ending_without_an_answer_tells_its_reason(edge: Deployment) -> None:
    """In `Rabbitbal-Error`, which no application can set."""
    edge.backend.answer = lambda request: Response(200, [(b"Rabbitbal-Error", b"forged"), (b"Rabbitbal-X", b"y")])
    answer = await edge.ask(GET)
    assert (said(answer), answer["rabbitbal-x"]) == ((200, None), None)
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(GET)
    await until(lambda: len(edge.backend.requests) == 2)
    edge.backend.reply(1, Response(200), Reason.APP_ERROR)
    answer = await conversation.answer()
    assert said(answer) == (500, b"app-error")
    assert len(list(values(answer.fields, b"rabbitbal-error"))) == 1
    edge.backend.answer = lambda request: Response(200)
    assert (await conversation.ask(GET)).status == 200


async def test_the_worker_is_shown_only_when_asked_for() -> None:
    """`RABBITBAL_EXPOSE_WORKER`."""
    async with deployed(replace(LIMITS, expose_worker=True)) as edge:
        answer = await edge.ask(GET)
        assert (answer["rabbitbal-worker"], answer["rabbitbal-attempt"]) == (b"worker-1", b"1")
        assert re.fullmatch(rb"queue;dur=\d+\.\d\d, app;dur=1\.00", answer["server-timing"] or b"")
    async with deployed(LIMITS) as edge:
        answer = await edge.ask(GET)
        assert (answer["rabbitbal-worker"], answer["server-timing"]) == (None, None)


# --- what a proxy changes


async def test_hop_by_hop_fields_stay_behind_in_both_directions(edge: Deployment) -> None:
    """Also those that `Connection` names; but not such as it must not name."""
    edge.backend.answer = lambda request: Response(
        200, [(b"Connection", b"X-Hop"), (b"X-Hop", b"1"), (b"Keep-Alive", b"9"), (b"X-End", b"2")], b""
    )
    answer = await edge.ask(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Private, Host\r\nX-Private: 1\r\nTE: trailers\r\n"
        b"Proxy-Authorization: x\r\nX-Public: 2\r\n\r\n"
    )
    (request,) = edge.backend.requests
    names = {name.lower() for name, _ in request.fields}
    assert not names & {b"connection", b"x-private", b"te", b"proxy-authorization"}
    assert {b"host", b"x-public"} <= names
    assert (answer["connection"], answer["x-hop"], answer["keep-alive"], answer["x-end"]) == (None, None, None, b"2")


async def test_forwarded_fields_of_a_trusted_peer_are_believed(edge: Deployment) -> None:
    """nginx in front says who the client is."""
    await edge.ask(
        b"GET / HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: outer.example\r\n\r\n"
    )
    fields = edge.backend.requests[0].fields
    assert (
        first(fields, b"x-forwarded-for"),
        first(fields, b"x-forwarded-proto"),
        first(fields, b"x-forwarded-host"),
        first(fields, b"forwarded"),
    ) == (b"203.0.113.7", b"https", b"outer.example", b'for=203.0.113.7;host="outer.example";proto=https')


async def test_forwarded_fields_of_a_stranger_are_replaced() -> None:
    """Nobody else's word counts; nor may a client set our own fields."""
    async with deployed(replace(LIMITS, trusted_proxies="192.0.2.0/24")) as edge:
        await edge.ask(
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 10.0.0.1\r\n"
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 1.2.3.4\r\n"
            b"Forwarded: for=203.0.113.7\r\nRabbitbal-Worker: me\r\nVia: 1.0 before\r\n\r\n"
        )
        fields = edge.backend.requests[0].fields
    assert tuple(
        list(values(fields, name))
        for name in (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded")
    ) == ([b"127.0.0.1"], [b"http"], [b"a"], [b'for=127.0.0.1;host="a";proto=http'])
    assert tuple(first(fields, name) for name in (b"x-forwarded-port", b"x-real-ip", b"rabbitbal-worker")) == (
        None,
        None,
        None,
    )
    assert list(values(fields, b"via")) == [b"1.0 before, 1.1 rabbitbal"]


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        (b"http://real.example:81/a?b", b"/a?b"),
        (b"http://real.example:81", b"/"),
        (b"HTTP://user@real.example:81/", b"/"),
        (b"http://real.example:81?x=1", b"/?x=1"),
    ],
)
async def test_an_absolute_target_brings_its_own_host(edge: Deployment, target: bytes, forwarded: bytes) -> None:
    """RFC 9112 §3.2.2: the received Host is ignored."""
    assert (await edge.ask(b"GET " + target + b" HTTP/1.1\r\nHost: false\r\n\r\n")).status == 200
    (request,) = edge.backend.requests
    assert (forwarded, [b"real.example:81"]) == (request.target, list(values(request.fields, b"host")))


# --- what is refused


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
    ],
    ids=lambda value: repr(value)[2:42],
)
async def test_what_is_not_a_request_is_refused(edge: Deployment, request_bytes: bytes) -> None:
    """400, the connection is closed, and no worker hears of it."""
    conversation = await edge.connect()
    answer = await conversation.ask(request_bytes)
    assert (said(answer), answer["connection"]) == ((400, b"bad-request"), b"close")
    assert await conversation.at_end()
    assert edge.backend.requests == []


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length : 5\r\n",
        b"Content-Length: 5\r\n folded\r\n",
        b"X: a\r\n Content-Length: 5\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: identity, chunked, x\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"X: a\nContent-Length: 5\r\n",
        b"X: a\rContent-Length: 5\r\n",
    ],
    ids=repr,
)
async def test_a_body_whose_end_two_readers_could_see_differently_is_refused(edge: Deployment, head: bytes) -> None:
    """Request smuggling: the worker never gets it, and what stands behind it is no request."""
    conversation = await edge.connect()
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = await conversation.ask(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n0\r\n\r\n" + smuggled)
    assert said(answer) == (400, b"bad-request")
    assert await conversation.at_end()
    assert edge.backend.requests == []


async def test_a_target_that_is_too_long_is_refused(edge: Deployment) -> None:
    """414, as soon as it is; one that just fits is served."""
    assert (await edge.ask(b"GET /" + b"a" * 199 + b" HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
    conversation = await edge.connect()
    assert said(await conversation.ask(b"GET /" + b"a" * 200)) == (414, b"target-too-long")
    assert await conversation.at_end()


async def test_fields_that_are_too_large_are_refused(edge: Deployment) -> None:
    """431, for one large field or for many small ones."""
    many = b"".join(b"X-%d: y\r\n" % number for number in range(500))
    for fields in (b"X: " + b"a" * 2048 + b"\r\n", many):
        conversation = await edge.connect()
        answer = await conversation.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
        assert said(answer) == (431, b"header-too-large")
        assert await conversation.at_end()
    assert edge.backend.requests == []


@pytest.mark.parametrize("start", [b"X: ", b"X", b"X: 1\r\nY-", b"X: 1\r\n"])
async def test_a_field_that_never_ends_is_refused(
    edge: Deployment, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser reports a field when its line is whole: until then somebody has to count."""
    received = 0
    feed = EdgeProtocol.data_received

    def counted(self: EdgeProtocol, data: bytes) -> None:
        nonlocal received
        feed(self, data)
        received += len(data)

    monkeypatch.setattr(EdgeProtocol, "data_received", counted)
    conversation = await edge.connect()
    sent = 0
    for piece in (b"GET / HTTP/1.1\r\nHost: a\r\n" + start, b"a" * 1000, b"a" * 1000, b"a" * 1100):
        conversation.send(piece)
        sent += len(piece)
        await until(lambda: received == sent)  # noqa: B023 - used up before the next turn
    assert said(await conversation.answer()) == (431, b"header-too-large")
    assert await conversation.at_end()


async def test_a_trailer_that_never_ends_is_refused(edge: Deployment) -> None:
    """It is counted like a head, and nothing was run."""
    conversation = await edge.connect()
    conversation.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
    await until(lambda: edge.server.server_state.tasks)
    conversation.send(b"a" * 5000)
    assert said(await conversation.answer()) == (431, b"header-too-large")
    assert await conversation.at_end()
    assert edge.backend.requests == []


async def test_a_body_over_the_limit_is_refused(edge: Deployment) -> None:
    """413, whether its length was declared or not; a body of just the limit is served."""
    exact = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"a" * 1000
    assert (await edge.ask(exact)).status == 200
    declared = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n"
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"a" * 1001
    for data in (declared, chunked):
        conversation = await edge.connect()
        answer = await conversation.ask(data)
        assert (said(answer), answer["connection"]) == ((413, b"body-too-large"), b"close")
        assert await conversation.at_end()
    assert len(edge.backend.requests) == 1
    assert edge.pending.endings == {"answered": 1, "body-too-large": 2}


async def test_garbage_behind_a_request_ends_the_connection(edge: Deployment) -> None:
    """After the answer: as an error of its own. Before it: no answer can be put in its place."""
    conversation = await edge.connect()
    await conversation.ask(GET)
    assert said(await conversation.ask(b"\x00\x01")) == (400, b"bad-request")
    assert await conversation.at_end()
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(GET)
    await until(lambda: len(edge.pending) == 1)
    conversation.send(b"\x00\x01")
    assert await conversation.at_end()
    await until(lambda: len(edge.pending) == 0)


async def test_an_upgrade_that_nobody_offers_is_ignored(edge: Deployment) -> None:
    """RFC 9110 §7.8: a server may ignore it. The connection goes on."""
    conversation = await edge.connect()
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert [(await conversation.ask(data)).status for data in (upgrade, GET)] == [200, 200]
    assert None is first(edge.backend.requests[0].fields, b"upgrade")


# --- pipelines


async def test_pipelined_requests_are_answered_in_order(edge: Deployment) -> None:
    """One after the other: each goes out when the one before was answered."""
    edge.backend.answer = lambda request: Response(200, [], request.target + request.body)
    conversation = await edge.connect()
    post = b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz"
    conversation.send(GET.replace(b"/ ", b"/a ") + post + GET.replace(b"/ ", b"/c "))
    assert [(await conversation.answer()).body for _ in range(3)] == [b"/a", b"/bxyz", b"/c"]


async def test_a_pipelined_body_may_come_later(edge: Deployment) -> None:
    """Reading goes on when its request's turn has come."""
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\nxyz")
    await until(lambda: len(edge.backend.requests) == 1)
    conversation.send(b"a" * 597)
    edge.backend.reply(0, Response(200, [], b"one"))
    assert (await conversation.answer()).body == b"one"
    await until(lambda: len(edge.backend.requests) == 2)
    edge.backend.reply(1, Response(200, [], b"two"))
    assert (await conversation.answer()).body == b"two"
    assert edge.backend.requests[1].body == b"xyz" + b"a" * 597


async def test_a_client_that_sends_ahead_is_read_no_further(edge: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for its turn is bounded by what one read brings, however much the client sends."""
    longest = 0
    begin = EdgeProtocol.on_message_begin

    def counted(self: EdgeProtocol) -> None:
        nonlocal longest
        longest = max(longest, len(self.pipeline))
        begin(self)

    monkeypatch.setattr(EdgeProtocol, "on_message_begin", counted)
    conversation = await edge.connect()
    request = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000 + b"\r\n\r\n"
    number = 3000
    conversation.send(request * number)
    for _ in range(number):
        assert (await conversation.answer()).status == 200
    assert longest <= 256 * 1024 // len(request) + 1


# --- the client leaves


async def test_a_client_that_hangs_up_ends_its_request(edge: Deployment) -> None:
    """client-gone, at once; the tap is told."""
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(GET)
    await until(lambda: len(edge.pending) == 1)
    conversation.hang_up()
    await until(lambda: len(edge.pending) == 0)
    await until(lambda: [event.reason for event in edge.backend.ended] == [Reason.CLIENT_GONE])
    assert edge.pending.endings == {"client-gone": 1}


async def test_a_client_that_hangs_up_in_its_body_costs_no_message(edge: Deployment) -> None:
    """Nothing was published, nothing is kept."""
    conversation = await edge.connect()
    conversation.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    await until(lambda: len(edge.server.server_state.tasks) == 1)
    conversation.hang_up()
    await until(lambda: not edge.server.server_state.tasks)
    assert (edge.backend.requests, edge.pending.endings) == ([], {})


# --- the edge's own endpoints, and its end


async def test_the_own_endpoints_answer_under_the_reserved_prefix(edge: Deployment) -> None:
    """They go to no worker, and show no secret."""
    bodies = {}
    for name in ("live", "ready", "settings", "stats"):
        answer = await edge.ask(b"GET /_rabbitbal/%s HTTP/1.1\r\nHost: a\r\n\r\n" % name.encode())
        assert answer.status == 200
        bodies[name] = json.loads(answer.body)
    assert (bodies["live"], bodies["ready"]) == ({"edge": "edge-1"}, {"ready": True, "edge": "edge-1"})
    assert bodies["settings"]["RABBITBAL_BODY_LIMIT"] == 1000
    assert "RABBITBAL_BROKER_PASSWORD_FILE" not in bodies["settings"]
    assert bodies["stats"]["pending"] == 0
    assert edge.backend.requests == []


async def test_an_edge_that_drains_asks_its_clients_to_leave(edge: Deployment) -> None:
    """With `Connection: close`, so that they come back to another."""
    edge.app.draining = True
    conversation = await edge.connect()
    answer = await conversation.ask(GET)
    assert (answer.status, answer["connection"]) == (200, b"close")
    assert await conversation.at_end()


async def test_a_defect_of_the_edge_is_a_500(edge: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not a connection that ends without a word."""

    async def broken(*_: object) -> Awaitable[None]:
        raise ZeroDivisionError

    monkeypatch.setattr(edge.pending, "run", broken)
    assert said(await edge.ask(GET)) == (500, b"edge-error")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        (b"rubbish", False),
    ],
)
async def test_a_trace_goes_into_the_envelope_when_it_is_well_formed(
    edge: Deployment, given: bytes, expected: bool
) -> None:
    """W3C Trace Context; the field itself travels with the request as it came."""
    await edge.ask(b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: " + given + b"\r\n\r\n")
    (envelope,) = edge.backend.envelopes
    assert (given.decode() if expected else None) == envelope.traceparent
    assert given == first(edge.backend.requests[0].fields, b"traceparent")
