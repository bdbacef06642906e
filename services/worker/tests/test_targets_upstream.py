"""The upstream target, against real servers on a port or a Unix socket."""

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from structlog.testing import CapturingLogger

from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets import BadResponse, TargetError
from rabbitbal.worker.targets import keeping as keeping_module
from rabbitbal.worker.targets.network import Lost, Wire
from tests.harness import Pieces, Recorder, answer_of, until
from tests.upstreams import Connection, Forwarding, Script, serve, target_of

MIB = 1024 * 1024
PIECE = bytes(64 * 1024)
HOST = (b"Host", b"shop.example")
GET = Request("GET", b"/", [HOST])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def always(answer: bytes, *, close: bool = False) -> Script:
    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(answer)
            if close:
                return

    return script


async def answer_to(request: Request, answer: bytes, *, close: bool = False) -> Response:
    async with serve(always(answer, close=close)) as (target, _):
        response: Response = await answer_of(target, request)
        return response


async def refusal(answer: bytes, *, close: bool = False, request: Request = GET) -> str:
    with pytest.raises(BadResponse) as caught:
        await answer_to(request, answer, close=close)
    return str(caught.value)


async def sent_for(request: Request) -> bytes:
    """The bytes that the upstream gets for the request."""
    seen: list[bytes] = []

    async def script(connection: Connection) -> None:
        seen.append(await connection.request())
        await connection.send(OK)

    async with serve(script) as (target, _):
        await answer_of(target, request)
    return seen[0]


async def test_the_request_goes_on_as_it_came() -> None:
    """Target and fields with their order, repeats and spelling; Host leads, and the length is that of the body."""
    fields = [(b"X-B", b"1"), HOST, (b"x-a", b"caf\xe9"), (b"X-B", b"2"), (b"Accept-Encoding", b"br")]
    sent = await sent_for(Request("PATCH", b"/a%2Fb//../c?x=%20&y?z#", fields, b"data"))
    expected = (
        b"PATCH /a%2Fb//../c?x=%20&y?z# HTTP/1.1\r\n"
        b"Host: shop.example\r\nX-B: 1\r\nx-a: caf\xe9\r\nX-B: 2\r\nAccept-Encoding: br\r\nContent-Length: 4\r\n"
        b"\r\ndata"
    )
    assert expected == sent


async def test_what_concerns_another_connection_stays_behind() -> None:
    """Hop-by-hop fields, and an Expect that nobody waits for."""
    fields = [HOST, (b"Connection", b"x-hop"), (b"X-Hop", b"1"), (b"TE", b"trailers"), (b"Expect", b"100-continue")]
    assert await sent_for(Request("GET", b"/", fields)) == b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"


async def test_octets_that_no_uri_has_are_percent_encoded() -> None:
    """Clients send them; HTTP knows none of them."""
    assert (await sent_for(Request("GET", b"/caf\xc3\xa9", [HOST]))).startswith(b"GET /caf%C3%A9 HTTP/1.1\r\n")


async def test_a_request_without_host_gets_the_upstreams() -> None:
    """HTTP/1.1 has none without (RFC 9112 §3.2)."""
    assert b"\r\nHost: 127.0.0.1:" in await sent_for(Request("GET", b"/"))


async def test_a_declared_empty_body_stays_declared() -> None:
    """Servers answer 411 to a POST without a length."""
    request = Request("POST", b"/", [HOST, (b"content-length", b"0")])
    assert (await sent_for(request)).endswith(b"\r\nContent-Length: 0\r\n\r\n")


async def test_the_response_comes_back_as_it_was() -> None:
    """Order, repeats and spelling of fields; hop-by-hop ones stay behind."""
    answer = (
        b"HTTP/1.1 404 Nope\r\nSet-Cookie: a=1\r\nx-Odd: 1\r\nConnection: keep-alive\r\nSet-Cookie: b=2\r\n"
        b"Content-Length: 2\r\n\r\nno"
    )
    fields = [(b"Set-Cookie", b"a=1"), (b"x-Odd", b"1"), (b"Set-Cookie", b"b=2"), (b"Content-Length", b"2")]
    assert Response(404, fields, b"no") == await answer_to(GET, answer)


async def test_a_chunked_response_gets_a_length() -> None:
    """Its chunks end here."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX-Trailer: 1\r\n\r\n"
    assert Response(200, [(b"Content-Length", b"3")], b"abc") == await answer_to(GET, answer)


async def test_a_response_that_ends_with_the_connection_is_whole() -> None:
    """HTTP/1.0 servers do that (RFC 9112 §6.3)."""
    assert (await answer_to(GET, b"HTTP/1.0 200 OK\r\n\r\nabc", close=True)).body == b"abc"


async def test_interim_responses_are_skipped() -> None:
    """100, 102 and 103 come before the final one."""
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK
    assert Response(200, [(b"Content-Length", b"2")], b"ok") == await answer_to(GET, answer)


async def test_head_and_not_modified_keep_their_length_without_a_body() -> None:
    """That many bytes do not come."""
    head = Request("HEAD", b"/", [HOST])
    long = [(b"Content-Length", b"999999")]
    assert Response(200, long) == await answer_to(head, b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n")
    assert Response(304, long) == await answer_to(GET, b"HTTP/1.1 304 Same\r\nContent-Length: 999999\r\n\r\n")


async def test_connections_are_kept_and_used_again() -> None:
    """Three requests, one connection."""
    async with serve(always(OK)) as (target, upstream):
        for _ in range(3):
            assert (await answer_of(target, GET)).body == b"ok"
    assert upstream.connections == 1


async def test_there_are_no_more_connections_than_slots_and_streams() -> None:
    """More requests than that wait for each other."""
    all_here = asyncio.Barrier(3)

    async def script(connection: Connection) -> None:
        await connection.request()
        await all_here.wait()
        await connection.send(OK)
        await always(OK)(connection)

    async with serve(script, slots=2, streams=1) as (target, upstream):
        await asyncio.gather(*(answer_of(target, GET) for _ in range(10)))
    assert upstream.connections == 3


def closes_kept_connections(*, after_request: bool, last_words: bytes = b"") -> Script:
    """Answers the first request of each connection; the first connection dies when its second request arrives."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(OK)
        if not after_request:
            return
        await connection.request()
        if connection.number > 0:
            await connection.send(OK)
            return
        await connection.send(last_words)

    return script


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_an_idempotent_request_is_repeated_when_its_kept_connection_was_closed(method: str) -> None:
    """On a connection of its own, once."""
    async with serve(closes_kept_connections(after_request=True)) as (target, upstream):
        await answer_of(target, GET)
        assert (await answer_of(target, Request(method, b"/", [HOST], b"data"))).body == b"ok"
    assert upstream.connections == 2


async def test_the_repeated_request_does_not_use_another_kept_connection() -> None:
    """That one may be closed as well: here all of them are, each at its second request."""
    both = asyncio.Barrier(2)

    async def script(connection: Connection) -> None:
        await connection.request()
        if connection.number < 2:
            await both.wait()
        await connection.send(OK)
        await connection.request()

    async with serve(script) as (target, upstream):
        await asyncio.gather(answer_of(target, GET), answer_of(target, GET))
        assert upstream.connections == 2
        assert (await answer_of(target, GET)).body == b"ok"
    assert upstream.connections == 3


async def test_a_post_is_not_repeated() -> None:
    """The upstream may have run it (RFC 9110 §9.2.2)."""
    async with serve(closes_kept_connections(after_request=True)) as (target, upstream):
        await answer_of(target, GET)
        with pytest.raises(BadResponse, match="closed the connection without a response"):
            await answer_of(target, Request("POST", b"/", [HOST], b"data"))
    assert upstream.connections == 1


async def test_a_post_does_not_use_a_connection_that_is_known_to_be_closed() -> None:
    """It is found closed before anything is sent."""
    async with serve(closes_kept_connections(after_request=False)) as (target, upstream):
        await answer_of(target, GET)
        # The end of the first connection is in the socket's buffer once a second server round trip has passed.
        await answer_of(target, GET)
        assert (await answer_of(target, Request("POST", b"/", [HOST], b"data"))).body == b"ok"
    assert upstream.connections == 3


async def test_a_response_that_had_begun_is_not_asked_for_again() -> None:
    """Not even the first bytes of its head may have come."""
    script = closes_kept_connections(after_request=True, last_words=b"HTTP/1.1 20")
    async with serve(script) as (target, upstream):
        await answer_of(target, GET)
        with pytest.raises(BadResponse, match="sent an invalid response"):
            await answer_of(target, GET)
    assert upstream.connections == 1


async def test_a_new_connection_that_is_closed_without_a_response_is_no_stale_one() -> None:
    """The request did that, or the upstream is broken: repeating helps neither."""

    async def script(connection: Connection) -> None:
        await connection.request()

    async with serve(script) as (target, upstream):
        with pytest.raises(BadResponse, match="closed the connection without a response"):
            await answer_of(target, GET)
    assert upstream.connections == 1


async def test_a_reset_connection_is_named() -> None:
    """In the middle of the response."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        # The target has read that much before the reset discards it.
        await received.wait()
        connection.abort()

    received = asyncio.Event()
    async with serve(script) as (target, _):
        request = asyncio.create_task(answer_of(target, GET))
        await asyncio.wait((request,), timeout=0.05)
        received.set()
        with pytest.raises(BadResponse, match="closed the connection in the middle of its response"):
            await request


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "sent an invalid response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "sent an invalid response: peer closed connection"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "sent an invalid response: peer closed",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "sent an invalid response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "sent an invalid response"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "sent an invalid response"),
        (b"HTTP/1.1 600 No\r\n\r\n", "status 600 is not that of a final response"),
    ],
)
async def test_an_invalid_response_is_named(answer: bytes, text: str) -> None:
    """Whatever it is."""
    assert text in await refusal(answer, close=True)


async def test_a_slow_upstream_is_waited_for() -> None:
    """How long is decided by who called."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await release.wait()
        await connection.send(OK)

    async with serve(script) as (target, _):
        request = asyncio.create_task(answer_of(target, GET))
        await asyncio.wait((request,), timeout=0.05)
        assert not request.done()
        release.set()
        assert (await request).body == b"ok"


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
async def test_cancelling_closes_the_connection(before: bytes) -> None:
    """So the upstream can see that nobody waits; the slot's connection is free for the next."""
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        if connection.number > 0:
            await connection.send(OK)
            return
        await connection.send(before)
        arrived.set()
        await connection.closed()
        closed.set()

    async with serve(script, slots=1) as (target, _):
        request = asyncio.create_task(answer_of(target, GET))
        await arrived.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await asyncio.wait_for(closed.wait(), 5)
        assert (await asyncio.wait_for(answer_of(target, GET), 5)).body == b"ok"


async def test_a_refused_connection_is_named(unused_tcp_port: int) -> None:
    """With the upstream's address."""
    target = target_of(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(BadResponse, match=rf"upstream http://127.0.0.1:{unused_tcp_port} refused the connection"):
        await answer_of(target, GET)
    await target.stop()


async def test_a_missing_socket_is_named(tmp_path: Path) -> None:
    """In the same words."""
    target = target_of(f"unix:{tmp_path}/none.sock")
    with pytest.raises(BadResponse, match=r"upstream unix:.*none.sock refused the connection"):
        await answer_of(target, GET)
    await target.stop()


async def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    """One connection to see that it is there, one for the requests."""
    async with serve(always(OK), tmp_path / "app.sock") as (target, upstream):
        await target.start()
        assert [(await answer_of(target, GET)).body, (await answer_of(target, GET)).body] == [b"ok", b"ok"]
    assert upstream.connections == 2


async def test_the_start_waits_for_the_upstream(tmp_path: Path) -> None:
    """The web server beside a worker may start after it; the wait is logged once."""
    log = CapturingLogger()
    path = tmp_path / "late.sock"
    target = target_of(f"unix:{path}", log=log)
    start = asyncio.create_task(target.start())
    await asyncio.wait((start,), timeout=0.05)
    assert not start.done()
    async with serve(always(OK), path):
        await asyncio.wait_for(start, 5)
    await target.stop()
    assert [call.args[0] for call in log.calls] == ["waiting for the upstream"]


async def test_the_start_gives_up_in_the_end(tmp_path: Path) -> None:
    """And names the setting."""
    target = target_of(f"unix:{tmp_path}/never.sock", patience=0.01, log=CapturingLogger())
    with pytest.raises(TargetError, match=r"RABBITBAL_UPSTREAM=unix:.*never.sock accepted no connection within 0.01 s"):
        await target.start()


async def test_a_real_server_answers(tmp_path: Path) -> None:
    """uvicorn, on a Unix socket: a body both ways, larger than any buffer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-method", scope["method"].encode())]})
        await send({"type": "http.response.body", "body": body})

    path = tmp_path / "uvicorn.sock"
    server = uvicorn.Server(uvicorn.Config(app, uds=str(path), lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    target = target_of(f"unix:{path}", log=CapturingLogger())
    await target.start()
    body = bytes(range(256)) * 390
    for _ in range(3):
        response = await answer_of(target, Request("POST", b"/", [HOST, (b"Content-Length", b"%d" % len(body))], body))
        assert (201, body) == (response.status, response.body)
    await target.stop()
    server.should_exit = True
    await asyncio.wait_for(serving, 10)


# --- bodies in pieces, both ways


def posted(length: int | None = None, body: bytes = b"") -> Request:
    fields = [HOST] if length is None else [HOST, (b"Content-Length", b"%d" % length)]
    return Request("POST", b"/", fields, body)


class Endless(Pieces):
    """An upload without end, or of so many pieces."""

    def __init__(self, count: int | None = None) -> None:
        super().__init__()
        self.given = 0
        self._most = count

    async def read(self) -> bytes:
        await asyncio.sleep(0)  # as from a queue
        if self._most is not None and self.given >= self._most:
            return b""
        self.given += 1
        return PIECE


async def test_a_response_is_passed_on_as_it_arrives() -> None:
    """In chunks, each seen by the client before the upstream makes the next."""
    seen = asyncio.Semaphore(0)

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for word in (b"one ", b"two ", b"six"):
            await connection.send(b"%x\r\n%s\r\n" % (len(word), word))
            await seen.acquire()
        await connection.send(b"0\r\n\r\n")

    async with serve(script) as (target, _), Forwarding(target, GET) as call:
        for body in (b"one ", b"one two ", b"one two six"):
            await until(lambda body=body: call.answer.body == body)  # type: ignore[misc]
            seen.release()
        await call.ended()
        assert call.answer.complete
        assert Response(200, [], b"one ") == call.answer.head


async def test_the_head_of_a_response_does_not_wait_for_its_body() -> None:
    """Event streams are silent at first."""
    go_on = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        await go_on.wait()
        await connection.send(b"late")

    async with serve(script) as (target, _), Forwarding(target, GET) as call:
        await until(lambda: call.answer.head)
        assert Response(200, [(b"Content-Length", b"4")]) == call.answer.head
        go_on.set()
        await call.ended()
        assert call.answer.body == b"late"


async def test_a_body_of_known_length_is_sent_as_it_arrives() -> None:
    """With that length."""
    got = bytearray()

    async def script(connection: Connection) -> None:
        assert (await connection.head()).endswith(b"\r\nContent-Length: 12\r\n\r\n")
        while len(got) < 12:
            got.extend(await connection.reader.read(100))
        await connection.send(OK)
        await always(OK)(connection)

    async with serve(script) as (target, upstream), Forwarding(target, posted(12, b"one ")) as call:
        for body, piece in ((b"one ", b"two "), (b"one two ", b"four")):
            await until(lambda body=body: got == body)  # type: ignore[misc]
            call.body.put(piece)
        # It has no end here, and needs none.
        await call.ended()
        assert got == b"one two four"
        assert call.answer.body == b"ok"
        assert (await answer_of(target, GET)).body == b"ok"
        assert upstream.connections == 1


async def test_a_body_of_unknown_length_is_sent_in_chunks() -> None:
    """The head does not wait for the first piece: here the client waits for an answer to the head."""
    got: list[bytes] = []

    async def script(connection: Connection) -> None:
        assert (await connection.head()).endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        while piece := await connection.chunk():
            got.append(piece)
        await connection.send(b"0\r\n\r\n")

    async with serve(script) as (target, upstream), Forwarding(target, posted()) as call:
        await until(lambda: call.answer.body == b"hi")
        call.body.put(b"one")
        await until(lambda: got == [b"one"])
        call.body.put(b"two")
        call.body.end()
        await call.ended()
        assert got == [b"one", b"two"]
        # Request and response are complete: the connection can have another.
        assert upstream.connections == 1


@pytest.mark.parametrize("pieces", [(b"one", b"two"), (b"one", b"two", b"three")])
async def test_pieces_that_are_here_already_keep_their_order(pieces: tuple[bytes, ...]) -> None:
    """The first is looked at before the head is sent."""
    got: list[bytes] = []

    async def script(connection: Connection) -> None:
        await connection.head()
        while piece := await connection.chunk():
            got.append(piece)
        await connection.send(OK)

    async with serve(script) as (target, _):
        assert (await answer_of(target, posted(), *pieces)).body == b"ok"
    assert b"".join(got) == b"".join(pieces)


async def echo(connection: Connection) -> None:
    await connection.head()
    await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while piece := await connection.chunk():
        await connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    await connection.send(b"0\r\n\r\n")


class Counting(Recorder):
    """Keeps no piece, and gives credit for what it has counted."""

    def __init__(self, request: Request) -> None:
        super().__init__(request, credit=0)
        self.size = 0
        self._granted = 128 * 1024

    def count(self) -> int:
        taken = sum(map(len, self.pieces))
        self._granted += taken + 256 * len(self.pieces)
        self.pieces.clear()
        self.size += taken
        self.grant(self._granted)
        return self.size


async def test_an_echo_of_any_length_passes_through_little_memory() -> None:
    """64 MiB up and down at the same time: the upstream reads no further where nobody reads what it writes."""
    async with serve(echo) as (target, _):
        answer = Counting(posted())
        tracemalloc.start()
        try:
            task = asyncio.create_task(target(posted(), Endless(1024), answer))
            while not task.done():
                answer.count()
                await asyncio.sleep(0)
            await task
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert answer.count() == 64 * MIB
        assert peak < 6 * MIB


async def test_a_client_that_reads_slowly_slows_the_upstream() -> None:
    """Only the kernel's buffers lie between: of 256 MiB hardly any are made before they are taken."""
    made = 0
    ahead = []

    async def script(connection: Connection) -> None:
        nonlocal made
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 * MIB))
        for _ in range(256):
            await connection.send(bytes(MIB))
            made += MIB

    async with serve(script) as (target, _):
        answer = Counting(GET)
        task = asyncio.create_task(target(GET, Pieces(), answer))
        while answer.count() < 64 * MIB:
            ahead.append(made - answer.size)
            await asyncio.sleep(0)
        answer.abandon()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert max(ahead) < 32 * MIB


# --- answers that come early


REFUSED = b"HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!"


@pytest.mark.parametrize("length", [None, 1 << 40])
async def test_an_upstream_that_answers_and_closes_at_once_is_heard(length: int | None) -> None:
    """It resets the connection in the middle of the upload, as most of that was not read."""

    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send(REFUSED)

    async with serve(script) as (target, upstream):
        for _ in range(50):
            async with Forwarding(target, posted(length), body=Endless()) as call:
                await call.ended()
                assert call.answer.complete
                assert Response(413, [(b"Content-Length", b"3")], b"no!") == call.answer.head
        assert upstream.connections == 50


async def test_an_answer_is_heard_though_the_connection_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload meets the reset before the answer is read, which is in the kernel's buffer still."""
    failed = asyncio.Event()
    send, receive = Wire.send, Wire.receive

    async def noticed(self: Wire, data: bytes) -> None:
        try:
            await send(self, data)
        except Lost:
            failed.set()
            raise

    async def late(self: Wire) -> bytes:
        await failed.wait()
        for _ in range(10):
            await asyncio.sleep(0)  # whoever waits for the upload has heard of it
        return await receive(self)

    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send(REFUSED)

    monkeypatch.setattr(Wire, "send", noticed)
    monkeypatch.setattr(Wire, "receive", late)
    async with serve(script) as (target, _), Forwarding(target, posted(), body=Endless()) as call:
        await call.ended()
        assert Response(413, [(b"Content-Length", b"3")], b"no!") == call.answer.head


async def test_an_upstream_that_answers_before_it_has_read_ends_the_upload() -> None:
    """Though it would read on: the answer is complete, and the connection cannot have another request."""
    closed = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send(OK)
        await connection.closed()
        closed.set()

    async with serve(script) as (target, upstream):
        for _ in range(2):
            closed.clear()
            async with Forwarding(target, posted(), body=Endless()) as call:
                await call.ended()
                assert call.answer.body == b"ok"
                await asyncio.wait_for(closed.wait(), 5)
        assert upstream.connections == 2


async def test_a_request_that_the_kernel_does_not_take_at_once_is_heard_early_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its rest is sent while the response is awaited; and it can be repeated as any other."""
    monkeypatch.setattr(Wire, "send_now", lambda self, data: 0)
    async with serve(closes_kept_connections(after_request=True)) as (target, upstream):
        assert (await answer_of(target, GET)).body == b"ok"
        assert (await answer_of(target, Request("PUT", b"/", [HOST], PIECE))).body == b"ok"
    assert upstream.connections == 2


# --- what goes wrong in the middle


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 9\r\n\r\nhalf",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ],
)
@pytest.mark.parametrize("reset", [True, False])
async def test_a_response_that_is_cut_short_never_looks_whole(head: bytes, reset: bool) -> None:
    """The client may have its first half; it never gets an end."""
    cut = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\n" + head)
        await cut.wait()
        if reset:
            connection.abort()

    async with serve(script) as (target, _), Forwarding(target, GET) as call:
        await until(lambda: call.answer.body == b"half")
        cut.set()
        with pytest.raises(BadResponse):
            await call.ended()
        assert call.answer.started
        assert not call.answer.finished
        assert not call.answer.complete


@pytest.mark.parametrize("length", [None, 100])
async def test_an_upload_that_breaks_off_never_looks_whole(length: int | None) -> None:
    """Its connection is closed without the end of the body."""
    begun = asyncio.Event()
    got = bytearray()

    async def script(connection: Connection) -> None:
        await connection.head()
        begun.set()
        while piece := await connection.reader.read(100):
            got.extend(piece)

    async with serve(script) as (target, upstream):
        async with Forwarding(target, posted(length, b"begun")) as call:
            await begun.wait()
            call.body.fail()
            with pytest.raises(ConnectionResetError):
                await call.ended()
        await upstream.idle()
    assert bytes(got) == (b"begun" if length else b"5\r\nbegun\r\n")


async def test_a_body_that_is_not_as_long_as_declared_is_no_request() -> None:
    """Shorter or longer."""
    for pieces in ((b"short",), (b"much ", b"too long")):
        async with serve(always(OK)) as (target, _):
            with pytest.raises(BadResponse, match="cannot be sent this request"):
                await answer_of(target, posted(10), *pieces)


@pytest.mark.parametrize("length", [None, 1 << 40])
async def test_cancelling_an_upload_closes_the_connection(length: int | None) -> None:
    """While it waits for the upstream to read, or for the client to send."""
    begun, closed = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.head()
        begun.set()
        await go_on.wait()
        await connection.closed()
        closed.set()

    for body in (Endless(), Pieces()):
        begun, closed, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        async with serve(script) as (target, _):
            async with Forwarding(target, posted(length), body=body) as call:
                await begun.wait()
                call.task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call.ended()
            go_on.set()
            await asyncio.wait_for(closed.wait(), 5)


# --- connections


async def test_an_upload_that_cannot_be_repeated_has_a_new_connection() -> None:
    """A kept one might be closed just then, and what was read of the body would be lost."""
    async with serve(closes_kept_connections(after_request=True)) as (target, upstream):
        await answer_of(target, GET)
        assert (await answer_of(target, Request("PUT", b"/", [HOST, (b"Content-Length", b"6")], b"one"), b"two")).status
    assert upstream.connections == 2


async def test_a_new_connection_takes_the_place_of_a_kept_one() -> None:
    """So there are never more of them than slots and streams, kept ones included."""
    open_now, most = set[int](), 0

    async def script(connection: Connection) -> None:
        nonlocal most
        open_now.add(connection.number)
        most = max(most, len(open_now))
        try:
            await connection.request()
            await connection.send(OK)
            await connection.closed()
        finally:
            open_now.discard(connection.number)

    async with serve(script, slots=1) as (target, upstream):
        for _ in range(3):
            request = Request("PUT", b"/", [HOST, (b"Content-Length", b"6")], b"one")
            assert (await answer_of(target, request, b"two")).body == b"ok"
    assert upstream.connections == 3
    assert most == 1


async def test_what_follows_a_response_is_no_answer_to_the_next_request() -> None:
    """An upstream that sends too much loses its connection, and nobody gets what was not meant for them."""

    async def script(connection: Connection) -> None:
        for _ in range(2):
            await connection.request()
            await connection.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother")

    async with serve(script) as (target, upstream):
        for _ in range(3):
            assert (await answer_of(target, GET)).body == b"ok"
    assert upstream.connections == 3


async def test_a_connection_is_not_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is this end that closes it: the upstream would do so at the worst moment."""
    monkeypatch.setattr(keeping_module, "_KEEPALIVE", 0.01)
    closed = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(OK)
        assert await connection.reader.read() == b""
        closed.set()

    async with serve(script) as (target, _):
        await answer_of(target, GET)
        await asyncio.wait_for(closed.wait(), 5)


async def test_every_address_of_a_host_is_tried() -> None:
    """localhost may be ::1 first, where nobody listens."""
    async with serve(always(OK)) as (served, upstream):
        port = served._address.port
        target = target_of(f"http://localhost:{port}")
        assert (await answer_of(target, GET)).body == b"ok"
        await target.stop()
    assert upstream.connections == 1


async def test_a_real_server_streams_both_ways(tmp_path: Path) -> None:
    """uvicorn, on a Unix socket: an echo, piece by piece."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    path = tmp_path / "uvicorn.sock"
    server = uvicorn.Server(uvicorn.Config(app, uds=str(path), lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    target = target_of(f"unix:{path}", log=CapturingLogger())
    await target.start()
    async with Forwarding(target, posted()) as call:
        for count in range(1, 11):
            call.body.put(b"ping")
            await until(lambda count=count: call.answer.body == b"ping" * count)  # type: ignore[misc]
        call.body.end()
        await call.ended()
        assert call.answer.complete
    await target.stop()
    server.should_exit = True
    await asyncio.wait_for(serving, 10)
