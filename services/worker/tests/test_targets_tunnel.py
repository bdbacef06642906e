"""Upgrades by the upstream target: a tunnel for WebSockets, and how it ends; against real sockets and a real server."""

import asyncio
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from rabbitbal.runtime.frames import Frames
from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets import BadResponse
from rabbitbal.worker.targets import tunnel as tunnel_module
from rabbitbal.worker.targets.upstream import UpstreamTarget
from tests.harness import Pieces, Recorder, until
from tests.upstreams import Connection, Forwarding, Script, serve, target_of

MIB = 1024 * 1024
FIELDS = [
    (b"Host", b"chat.example"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"Sec-WebSocket-Version", b"13"),
]
UPGRADE = Request("GET", b"/chat", FIELDS, upgrade="websocket")
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
)
GOING_AWAY = b"\x88\x02\x03\xe9"


def frame(payload: bytes, opcode: Opcode = Opcode.TEXT, *, mask: bool = False) -> bytes:
    return Frame(opcode, payload).serialize(mask=mask)


HELLO = frame(b"hello")
CLOSE = frame(b"\x03\xe8", Opcode.CLOSE)


def switching(then: Script, words: bytes = b"") -> Script:
    """Says 101, and ``words`` in the same segment."""

    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send(SWITCHED + words)
        await then(connection)

    return script


async def echo(connection: Connection) -> None:
    while data := await connection.reader.read(65536):
        await connection.send(data)


async def test_the_upstream_is_asked_to_upgrade() -> None:
    """By the fields of this connection; those of the WebSocket are the client's."""
    seen: list[bytes] = []

    async def script(connection: Connection) -> None:
        seen.append(await connection.head())
        await connection.send(SWITCHED)

    request = Request(
        "GET", b"/chat", [*FIELDS, (b"Connection", b"keep-alive"), (b"Content-Length", b"0")], upgrade="websocket"
    )
    async with serve(script) as (target, _), Forwarding(target, request) as call:
        await call.ended()
        assert Response(101, [(b"Sec-WebSocket-Accept", b"x")]) == call.answer.head
        assert call.answer.complete
    assert seen == [
        b"GET /chat HTTP/1.1\r\nHost: chat.example\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ]


async def test_bytes_go_both_ways_at_once() -> None:
    """Those that came right behind the head first."""
    async with serve(switching(echo, b"first ")) as (target, _), Forwarding(target, UPGRADE) as call:
        await until(lambda: call.answer.body == b"first ")
        for count in range(1, 4):
            call.body.put(b"ping")
            await until(lambda count=count: call.answer.body == b"first " + b"ping" * count)  # type: ignore[misc]
        call.body.end()
        await call.ended()
        assert call.answer.complete


async def test_an_upstream_may_refuse() -> None:
    """Then it is an ordinary response."""

    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        await connection.closed()

    async with serve(script) as (target, _), Forwarding(target, UPGRADE) as call:
        await call.ended()
        assert Response(403, [(b"Content-Length", b"2")], b"no") == call.answer.head
        assert call.answer.complete


async def test_a_tunnel_has_a_connection_of_its_own() -> None:
    """Not one that was kept; and none is kept behind it."""

    async def script(connection: Connection) -> None:
        await connection.head()
        if connection.number == 1:
            await connection.send(SWITCHED)
            await echo(connection)
            return
        await connection.send(b"HTTP/1.1 204 No\r\n\r\n")
        await connection.closed()

    plain = Request("GET", b"/", [(b"Host", b"h")])
    async with serve(script) as (target, upstream):
        for request in (plain, UPGRADE):
            async with Forwarding(target, request) as call:
                call.body.end()
                await call.ended()
        assert upstream.connections == 2


async def test_the_clients_end_is_passed_on() -> None:
    """What the upstream still says then arrives."""

    async def late(connection: Connection) -> None:
        assert await connection.reader.read() == b"bye"
        await connection.send(b"bye, too")

    async with serve(switching(late)) as (target, _), Forwarding(target, UPGRADE) as call:
        call.body.put(b"bye")
        call.body.end()
        await call.ended()
        assert call.answer.body == b"bye, too"
        assert call.answer.complete


async def test_an_upstream_that_does_not_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; it sees the connection closed."""
    monkeypatch.setattr(tunnel_module, "CLOSING", 0.05)
    closed = asyncio.Event()

    async def talks_on(connection: Connection) -> None:
        try:
            while True:
                await connection.send(HELLO)
                await asyncio.sleep(0.001)
        finally:
            closed.set()

    async with serve(switching(talks_on)) as (target, _), Forwarding(target, UPGRADE) as call:
        call.body.end()
        await call.ended()
        assert call.answer.complete
        await asyncio.wait_for(closed.wait(), 5)


async def test_the_upstreams_end_ends_it() -> None:
    """With everything that it said before."""

    async def speaks(connection: Connection) -> None:
        await connection.send(HELLO + CLOSE)

    async with serve(switching(speaks)) as (target, _), Forwarding(target, UPGRADE) as call:
        await call.ended()
        assert call.answer.body == HELLO + CLOSE
        assert call.answer.complete


async def test_a_tunnel_that_is_reset_has_no_orderly_end() -> None:
    """The client's connection breaks as well."""
    go_on = asyncio.Event()

    async def dies(connection: Connection) -> None:
        await connection.send(HELLO)
        await go_on.wait()
        connection.abort()

    async with serve(switching(dies)) as (target, _), Forwarding(target, UPGRADE) as call:
        await until(lambda: call.answer.body == HELLO)
        go_on.set()
        with pytest.raises(BadResponse, match="closed the connection in the middle of its response"):
            await call.ended()
        assert not call.answer.finished


@pytest.mark.parametrize("lost", [True, False])
async def test_a_client_that_is_gone_closes_the_upstreams_connection(lost: bool) -> None:
    """Cancelled, or found out by the body."""
    async with serve(switching(echo, HELLO)) as (target, upstream):
        async with Forwarding(target, UPGRADE) as call:
            await until(lambda: call.answer.body == HELLO)
            if lost:
                call.body.fail()
            else:
                call.task.cancel()
            with pytest.raises(ConnectionResetError if lost else asyncio.CancelledError):
                await call.ended()
        await upstream.idle()


async def test_a_long_message_passes_through_little_memory() -> None:
    """64 MiB up and down at the same time; the client takes what it is given room for."""

    piece = frame(bytes(64 * 1024 - 4), Opcode.BINARY)
    assert len(piece) == 64 * 1024

    class Long(Pieces):
        left = 1024

        async def read(self) -> bytes:
            await asyncio.sleep(0)
            self.left -= 1
            return piece if self.left >= 0 else b""

    async with serve(switching(echo)) as (target, _):
        answer = Recorder(UPGRADE, credit=0)
        taken = granted = 0
        tracemalloc.start()
        try:
            task = asyncio.create_task(target(UPGRADE, Long(), answer))
            while not task.done():
                size = sum(map(len, answer.pieces))
                taken, granted = taken + size, granted + size + 256 * len(answer.pieces)
                answer.pieces.clear()
                answer.grant(granted + 128 * 1024)
                await asyncio.sleep(0)
            await task
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert taken + sum(map(len, answer.pieces)) == 64 * MIB
    assert peak < 6 * MIB


# --- the worker leaves


async def test_draining_tells_the_client_to_go() -> None:
    """Between two frames. Its Close reaches the upstream, which ends; nothing that the upstream says comes behind."""
    got = bytearray()

    async def answers_close(connection: Connection) -> None:
        while data := await connection.reader.read(65536):
            got.extend(data)
            await connection.send(HELLO + CLOSE)
            return

    async with serve(switching(answers_close, HELLO)) as (target, upstream), Forwarding(target, UPGRADE) as call:
        await until(lambda: call.answer.body == HELLO)
        target.drain()
        await until(lambda: call.answer.body == HELLO + GOING_AWAY)
        assert not call.task.done()
        reply = frame(b"\x03\xe9", Opcode.CLOSE, mask=True)
        call.body.put(reply)
        await call.ended()
        await upstream.idle()
        assert got == reply
        assert call.answer.body == HELLO + GOING_AWAY
        assert call.answer.complete


async def test_draining_waits_for_the_end_of_a_frame() -> None:
    """A frame that has begun is completed; the one behind it is not begun."""
    go_on = asyncio.Event()

    async def talks(connection: Connection) -> None:
        await go_on.wait()
        await connection.send(HELLO[4:] + HELLO)
        await connection.closed()

    async with serve(switching(talks, HELLO + HELLO[:4])) as (target, _), Forwarding(target, UPGRADE) as call:
        await until(lambda: call.answer.body == HELLO + HELLO[:4])
        target.drain()
        go_on.set()
        await until(lambda: call.answer.body == HELLO + HELLO + GOING_AWAY)
        call.body.end()
        await call.ended()
        assert call.answer.body == HELLO + HELLO + GOING_AWAY


async def test_draining_says_nothing_behind_a_close() -> None:
    """RFC 6455 §5.5.1: "The application MUST NOT send any more data frames after sending a Close frame"."""

    async def waits(connection: Connection) -> None:
        await connection.closed()

    async with serve(switching(waits, CLOSE)) as (target, _), Forwarding(target, UPGRADE) as call:
        await until(lambda: call.answer.body == CLOSE)
        target.drain()
        call.body.end()
        await call.ended()
        assert call.answer.body == CLOSE


async def test_draining_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a client that does not answer nor for an upstream that talks on."""
    monkeypatch.setattr(tunnel_module, "CLOSING", 0.05)
    closed = asyncio.Event()

    async def talks_on(connection: Connection) -> None:
        try:
            while True:
                await connection.send(HELLO)
                await asyncio.sleep(0.001)
        finally:
            closed.set()

    async with serve(switching(talks_on)) as (target, _), Forwarding(target, UPGRADE) as call:
        await until(lambda: call.answer.body)
        target.drain()
        await call.ended()
        assert call.answer.complete
        assert call.answer.body.endswith(HELLO + GOING_AWAY)
        assert call.answer.body.count(GOING_AWAY) == 1
        await asyncio.wait_for(closed.wait(), 5)


async def test_a_tunnel_that_begins_while_the_worker_leaves_ends_at_once() -> None:
    """It was accepted before."""
    async with serve(switching(echo)) as (target, _), Forwarding(target, UPGRADE) as call:
        target.drain()
        await until(lambda: call.answer.body == GOING_AWAY)
        call.body.end()
        await call.ended()
        assert call.answer.body == GOING_AWAY


async def test_draining_leaves_ordinary_responses_alone() -> None:
    """They end by themselves, or by the deadline of whoever drains."""
    go_on = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await go_on.wait()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with serve(script) as (target, _), Forwarding(target, Request("GET", b"/", [(b"Host", b"h")])) as call:
        target.drain()
        go_on.set()
        await call.ended()
        assert call.answer.body == b"ok"


# --- a real server


class Client:
    """The client of a WebSocket, as a state machine of the `websockets` library: its bytes go through the tunnel."""

    def __init__(self, target: UpstreamTarget, uri: str) -> None:
        self._protocol = ClientProtocol(parse_uri(uri))
        handshake = self._protocol.connect()
        fields = [(name.encode(), value.encode()) for name, value in handshake.headers.raw_items()]
        self._protocol.send_request(handshake)
        self._protocol.data_to_send()
        self.call = Forwarding(target, Request("GET", handshake.path.encode(), fields, upgrade="websocket"))
        self._seen = 0
        self.frames: list[Frame] = []

    async def open(self) -> None:
        await until(lambda: self.call.answer.head)
        head = self.call.answer.head
        assert head is not None
        lines = [b"%s: %s" % field for field in [*head.fields, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]]
        self._protocol.receive_data(b"\r\n".join([b"HTTP/1.1 101 Switching Protocols", *lines, b"", b""]))
        self._take()

    def send(self, text: str) -> None:
        self._protocol.send_text(text.encode())
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.call.body.put(data)

    def _take(self) -> None:
        body = self.call.answer.body
        self._protocol.receive_data(body[self._seen :])
        self._seen = len(body)
        self.frames += [event for event in self._protocol.events_received() if isinstance(event, Frame)]
        self._flush()

    async def next(self) -> Frame:
        def arrived() -> bool:
            self._take()
            return bool(self.frames)

        await until(arrived)
        return self.frames.pop(0)

    @property
    def close_code(self) -> int | None:
        return self._protocol.close_rcvd.code if self._protocol.close_rcvd else None


@pytest.mark.parametrize("drained", [True, False])
async def test_a_real_server_is_reached(drained: bool) -> None:
    """Handshake, messages, a ping, and the closing handshake: begun by the server, or by the worker that leaves."""
    codes: list[int | None] = []

    async def handler(socket: ServerConnection) -> None:
        try:
            await (await socket.ping())
            async for message in socket:
                if message == "leave":
                    await socket.close(4000, "as asked")
                    break
                assert isinstance(message, str)
                await socket.send(f"you said {message}" if len(message) < 100 else message)
        finally:
            codes.append(socket.close_code)

    async with serve_websockets(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        target = target_of(f"http://127.0.0.1:{port}")
        client = Client(target, f"ws://127.0.0.1:{port}/")
        async with client.call:
            await client.open()
            assert (await client.next()).opcode is Opcode.PING
            client.send("hello")
            assert (await client.next()).data == b"you said hello"
            client.send("x" * 300_000)
            assert len((await client.next()).data) == 300_000
            if drained:
                target.drain()
            else:
                client.send("leave")
            assert (await client.next()).opcode is Opcode.CLOSE
            assert client.close_code == (1001 if drained else 4000)
            await client.call.ended()
            assert client.call.answer.complete
        await until(lambda: codes)
        assert codes == [1001 if drained else 4000]
        await target.stop()


# --- the frames


SIZES = st.one_of(st.integers(0, 130), st.sampled_from([125, 126, 127, 65535, 65536, 65537]))


@given(
    frames=st.lists(
        st.tuples(SIZES, st.booleans(), st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT])), max_size=5
    ),
    cuts=st.lists(st.integers(0, 200_000), max_size=8),
)
def test_frames_are_followed_however_they_are_cut(frames: list[tuple[int, bool, Opcode]], cuts: list[int]) -> None:
    """Of every prefix of a stream it is known whether it ends between two frames."""
    data, ends = b"", {0}
    for size, mask, opcode in frames:
        data += frame(bytes(size), opcode, mask=mask)
        ends.add(len(data))
    followed, at = Frames(), 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        assert followed.follow(data[at:cut]) == cut - at
        at = cut
        assert followed.between is (at in ends)
    # The same, stopping at every boundary.
    followed, at = Frames(), 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        while at < cut:
            at += followed.follow(data[at:cut], all_of_it=False)
            assert at in ends or at == cut
            assert followed.between is (at in ends)
    assert not followed.closed


def test_a_close_frame_is_noticed() -> None:
    """From its first two bytes on; and nothing else passes for one."""
    frames = Frames()
    frames.follow(HELLO + frame(b"\x88\x00" * 40, Opcode.BINARY) + CLOSE[:1])
    assert not frames.closed
    frames.follow(CLOSE[1:2])
    assert frames.closed
    assert not frames.between
    frames.follow(CLOSE[2:])
    assert frames.between
