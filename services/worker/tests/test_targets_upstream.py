"""The upstream target, against real servers on a port or a Unix socket."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from structlog.testing import CapturingLogger

from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets import BadResponse, TargetError
from rabbitbal.worker.targets.upstream import UpstreamTarget, parse_address

LIMIT = 100_000
HOST = (b"Host", b"shop.example")
GET = Request("GET", b"/", [HOST])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[["Connection"], Awaitable[None]]


class Connection:
    """The server's end of a connection. ``number`` counts them from 0."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The bytes of the next request; raises IncompleteReadError when the client has closed."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
        return head + await self.reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def abort(self) -> None:
        """Reset, as a server does that has died."""
        linger_not = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        self.writer.transport.abort()


class Upstream:
    """A server that does what the script of the test says on each connection."""

    def __init__(self, script: Script) -> None:
        self.connections = 0
        self._script = script
        self._handlers: set[asyncio.Task[None]] = set()

    def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self.connections, reader, writer)
        self.connections += 1
        self._handlers.add(asyncio.create_task(self._run(connection)))

    async def _run(self, connection: Connection) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            try:
                await self._script(connection)
            finally:
                connection.writer.close()
                await connection.writer.wait_closed()

    async def close(self) -> None:
        """End every connection; what a script asserted in vain fails the test."""
        if self._handlers:
            _, running = await asyncio.wait(self._handlers, timeout=0.2)
            for handler in running:
                handler.cancel()
            for outcome in await asyncio.gather(*self._handlers, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome


@contextlib.asynccontextmanager
async def serve(script: Script, path: Path | None = None, **options: Any) -> AsyncIterator[tuple[Any, Upstream]]:
    """A server with that script, and a target that forwards to it (not started: that would make a connection)."""
    upstream = Upstream(script)
    if path is None:
        server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(upstream.handle, str(path))
        address = f"unix:{path}"
    target = target_of(address, **options)
    try:
        yield target, upstream
    finally:
        await target.stop()
        server.close()
        await upstream.close()


def target_of(address: str, slots: int = 4, **options: Any) -> UpstreamTarget:
    return UpstreamTarget(parse_address(address), slots=slots, response_limit=LIMIT, **options)


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
        response: Response = await target(request)
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
        await target(request)
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
    """Also one beyond the limit: that many bytes do not come."""
    head = Request("HEAD", b"/", [HOST])
    long = [(b"Content-Length", b"999999")]
    assert Response(200, long) == await answer_to(head, b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n")
    assert Response(304, long) == await answer_to(GET, b"HTTP/1.1 304 Same\r\nContent-Length: 999999\r\n\r\n")


async def test_connections_are_kept_and_used_again() -> None:
    """Three requests, one connection."""
    async with serve(always(OK)) as (target, upstream):
        for _ in range(3):
            assert (await target(GET)).body == b"ok"
    assert upstream.connections == 1


async def test_there_are_no_more_connections_than_slots() -> None:
    """More requests than that wait for each other."""
    async with serve(always(OK), slots=2) as (target, upstream):
        await asyncio.gather(*(target(GET) for _ in range(10)))
    assert upstream.connections <= 2


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
        await target(GET)
        assert (await target(Request(method, b"/", [HOST], b"data"))).body == b"ok"
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
        await asyncio.gather(target(GET), target(GET))
        assert upstream.connections == 2
        assert (await target(GET)).body == b"ok"
    assert upstream.connections == 3


async def test_a_post_is_not_repeated() -> None:
    """The upstream may have run it (RFC 9110 §9.2.2)."""
    async with serve(closes_kept_connections(after_request=True)) as (target, upstream):
        await target(GET)
        with pytest.raises(BadResponse, match="closed the connection without a response"):
            await target(Request("POST", b"/", [HOST], b"data"))
    assert upstream.connections == 1


async def test_a_post_does_not_use_a_connection_that_is_known_to_be_closed() -> None:
    """It is found closed before anything is sent."""
    async with serve(closes_kept_connections(after_request=False)) as (target, upstream):
        await target(GET)
        # The end of the first connection is in the socket's buffer once a second server round trip has passed.
        await target(GET)
        assert (await target(Request("POST", b"/", [HOST], b"data"))).body == b"ok"
    assert upstream.connections == 3


async def test_a_response_that_had_begun_is_not_asked_for_again() -> None:
    """Not even the first bytes of its head may have come."""
    script = closes_kept_connections(after_request=True, last_words=b"HTTP/1.1 20")
    async with serve(script) as (target, upstream):
        await target(GET)
        with pytest.raises(BadResponse, match="sent an invalid response"):
            await target(GET)
    assert upstream.connections == 1


async def test_a_new_connection_that_is_closed_without_a_response_is_no_stale_one() -> None:
    """The request did that, or the upstream is broken: repeating helps neither."""

    async def script(connection: Connection) -> None:
        await connection.request()

    async with serve(script) as (target, upstream):
        with pytest.raises(BadResponse, match="closed the connection without a response"):
            await target(GET)
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
        request = asyncio.create_task(target(GET))
        await asyncio.wait((request,), timeout=0.05)
        received.set()
        with pytest.raises(BadResponse, match="closed the connection in the middle of its response"):
            await request


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "sent an invalid response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "sent an invalid response: peer closed connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "sent an invalid response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "sent an invalid response"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "sent an invalid response"),
        (b"HTTP/1.1 600 No\r\n\r\n", "status 600 is not that of a final response"),
    ],
)
async def test_an_invalid_response_is_named(answer: bytes, text: str) -> None:
    """Whatever it is."""
    assert text in await refusal(answer, close=True)


async def test_a_response_that_declares_too_much_is_refused_before_it_is_read() -> None:
    """No byte of its body has been sent, and it does not wait for any."""
    text = await refusal(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n")
    assert text == "Content-Length 100001 is larger than the response limit of 100000 bytes"


async def test_a_response_that_grows_too_large_is_refused() -> None:
    """It has no end; its connection is closed."""
    closed = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                await connection.send(b"400\r\n" + bytes(1024) + b"\r\n")
        finally:
            closed.set()

    async with serve(script) as (target, _):
        with pytest.raises(BadResponse, match="body is larger than the response limit of 100000 bytes"):
            await target(GET)
        await asyncio.wait_for(closed.wait(), 5)


async def test_a_slow_upstream_is_waited_for() -> None:
    """How long is decided by who called."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await release.wait()
        await connection.send(OK)

    async with serve(script) as (target, _):
        request = asyncio.create_task(target(GET))
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
        assert await connection.reader.read() == b""
        closed.set()

    async with serve(script, slots=1) as (target, _):
        request = asyncio.create_task(target(GET))
        await arrived.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await asyncio.wait_for(closed.wait(), 5)
        assert (await asyncio.wait_for(target(GET), 5)).body == b"ok"


async def test_a_refused_connection_is_named(unused_tcp_port: int) -> None:
    """With the upstream's address."""
    target = target_of(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(BadResponse, match=rf"upstream http://127.0.0.1:{unused_tcp_port} refused the connection"):
        await target(GET)
    await target.stop()


async def test_a_missing_socket_is_named(tmp_path: Path) -> None:
    """In the same words."""
    target = target_of(f"unix:{tmp_path}/none.sock")
    with pytest.raises(BadResponse, match=r"upstream unix:.*none.sock refused the connection"):
        await target(GET)
    await target.stop()


async def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    """One connection to see that it is there, one for the requests."""
    async with serve(always(OK), tmp_path / "app.sock") as (target, upstream):
        await target.start()
        assert [(await target(GET)).body, (await target(GET)).body] == [b"ok", b"ok"]
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
        response = await target(Request("POST", b"/", [HOST, (b"Content-Length", b"%d" % len(body))], body))
        assert (201, body) == (response.status, response.body)
    await target.stop()
    server.should_exit = True
    await asyncio.wait_for(serving, 10)
