"""WebSockets of the ASGI target. The counterpart is the client of the `websockets` library, over pieces in memory."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import CapturingLogger
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import enable_client_permessage_deflate
from websockets.frames import Close, Frame, Opcode
from websockets.uri import parse_uri

from rabbitbal.wire.fields import Fields
from rabbitbal.wire.message import Request
from rabbitbal.worker.targets import AppRaised, BadResponse
from rabbitbal.worker.targets.asgi import AsgiTarget
from rabbitbal.worker.targets.websocket_connection import Times
from tests.harness import PLENTY, Pieces, Recorder, answer_of, until

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
LIMIT = 100_000
CLOSE_TIMEOUT = 0.05


def target_of(app: Any, **times: float) -> AsgiTarget:
    chosen = Times(**{"close_timeout": 10.0, **times})
    return AsgiTarget(app, slots=2, streams=2, websocket_limit=LIMIT, websocket_times=chosen, log=CapturingLogger())


class Client:
    """A client whose requests go to a target, and whose handshake and frames are the library's."""

    def __init__(self, *, fields: Fields = [], compress: bool = True, credit: int = PLENTY, **options: Any) -> None:  # noqa: B006
        extensions = enable_client_permessage_deflate(None) if compress else None
        self.protocol = ClientProtocol(parse_uri("wss://example.org/a%20b?c=d"), extensions=extensions, **options)
        self.handshake = self.protocol.connect()
        self.protocol.send_request(self.handshake)
        self.protocol.data_to_send()
        own = [(name.encode(), value.encode()) for name, value in self.handshake.headers.raw_items()]
        # What the edge leaves of them, and what it adds.
        own = [field for field in own if field[0].lower() not in (b"connection", b"upgrade")]
        self.request = Request(
            "GET", b"/a%20b?c=d", [*own, (b"X-Forwarded-Proto", b"https"), *fields], upgrade="websocket"
        )
        self.body = Pieces()
        self.answer = Recorder(self.request, credit)
        self.frames: list[Frame] = []
        self._seen = 0
        self._headed = False
        self.running: asyncio.Task[None]

    def call(self, target: AsgiTarget) -> "asyncio.Task[None]":
        self.running = asyncio.create_task(target(self.request, self.body, self.answer))
        return self.running

    def look(self) -> "Client":
        """Take in what has arrived."""
        if self.answer.head is not None and not self._headed:
            self._headed = True
            head = self.answer.head
            fields = [*head.fields, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
            lines = b"".join(b"%s: %s\r\n" % field for field in fields)
            self.protocol.receive_data(b"HTTP/1.1 %d Reason\r\n%s\r\n" % (head.status, lines))
            events = self.protocol.events_received()
            assert len(events) == 1
            if self.protocol.handshake_exc is not None:
                raise self.protocol.handshake_exc
        arrived = self.answer.body[self._seen :]
        self._seen += len(arrived)
        if arrived:
            self.protocol.receive_data(arrived)
            self.frames += [event for event in self.protocol.events_received() if isinstance(event, Frame)]
        self.flush()
        return self

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.body.put(data)
            else:
                self.body.end()

    async def opened(self) -> None:
        await until(lambda: self.look()._headed)

    async def frame(self) -> Frame:
        """The next that has come."""
        await until(lambda: self.look().frames)
        return self.frames.pop(0)

    async def text(self) -> str:
        frame = await self.frame()
        assert frame.opcode is Opcode.TEXT
        return bytes(frame.data).decode()

    async def closed(self) -> Close:
        """The Close that has come, behind whatever else."""
        await until(lambda: self.look().protocol.close_rcvd is not None)
        assert self.protocol.close_rcvd is not None
        return self.protocol.close_rcvd

    def raw(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.body.put(piece)


@contextlib.asynccontextmanager
async def open_to(app: Any, *, times: dict[str, float] | None = None, **options: Any) -> AsyncIterator[Client]:
    """A client with an open WebSocket. At the end the call must have returned."""
    client = Client(**options)
    call = client.call(target_of(app, **(times or {})))
    try:
        await until(lambda: client.answer.head or call.done())
        if call.done():
            call.result()
        await client.opened()
        yield client
        await asyncio.wait_for(call, 10)
        assert client.answer.complete
    finally:
        call.cancel()
        await asyncio.wait((call,))
        client.answer.abandon()


def masked(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame of a client, its mask being zero."""
    assert len(data) < 126
    return bytes([(0x80 if fin else 0) | opcode, 0x80 | len(data), 0, 0, 0, 0]) + data


async def echo(scope: Any, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Log:
    """An application that accepts and notes all that it receives, until the disconnect."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.events.append(await receive())
        await send(ACCEPT)
        while self.events[-1]["type"] != "websocket.disconnect":
            await self.go_on.wait()
            self.events.append(await receive())


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


# --- the handshake


async def test_the_scope_describes_the_handshake() -> None:
    """Every key of the specification, and nothing that differs from it."""
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.update(scope)
        await send(ACCEPT)

    fields = [(b"Sec-WebSocket-Protocol", b"chat, chat.v2"), (b"X-Forwarded-For", b"192.0.2.1")]
    async with open_to(app, fields=fields) as client:
        client.look()
        assert (await client.closed()).code == 1000
    assert seen == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "wss",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=d",
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in client.request.fields],
        "client": ("192.0.2.1", 0),
        "server": ("example.org", 443),
        "subprotocols": ["chat", "chat.v2"],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


async def test_the_application_chooses_subprotocol_and_fields() -> None:
    """The rest is the handshake's; what is the edge's is not there."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "websocket.connect"}
        await send({**ACCEPT, "subprotocol": "chat", "headers": [(b"x-a", b"1"), (b"set-cookie", b"b=c")]})

    async with open_to(app, subprotocols=["other", "chat"]) as client:
        assert client.protocol.subprotocol == "chat"
        assert client.answer.head is not None
        assert client.answer.head.status == 101
        assert [name.lower() for name, _ in client.answer.head.fields] == [
            b"sec-websocket-accept",
            b"sec-websocket-extensions",
            b"sec-websocket-protocol",
            b"x-a",
            b"set-cookie",
        ]
        await client.closed()


@pytest.mark.parametrize("key", [b"Sec-WebSocket-Key", b"Sec-WebSocket-Version"])
@pytest.mark.parametrize("value", [None, b"8"])
async def test_a_client_that_does_not_know_how_is_refused(key: bytes, value: bytes | None) -> None:
    """The application hears nothing of it; the version that would do is named."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise AssertionError

    request = Client().request
    fields = [field for field in request.fields if field[0] != key] + ([(key, value)] if value else [])
    response = await answer_of(target_of(app), Request("GET", b"/", fields, upgrade="websocket"))
    assert response.status == 400
    assert b"Failed to open a WebSocket connection" in response.body
    named = (b"Sec-WebSocket-Version", b"13") in response.fields
    assert named == (key == b"Sec-WebSocket-Version")


async def test_an_application_that_closes_first_denies() -> None:
    """By 403, as the specification says; then it is disconnected."""
    events: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(CLOSE)
        events.append(await receive())

    response = await answer_of(target_of(app), Client().request)
    assert (response.status, response.body) == (403, b"")
    assert events == [disconnect(1006)]


async def test_an_application_may_deny_with_a_response_of_its_own() -> None:
    """The extension "websocket.http.response"."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"x")]}
        body = {"type": "websocket.http.response.body", "body": b"who "}
        await receive()
        await send(start)
        await send({**body, "more_body": True})
        await send({**body, "body": b"are you"})
        assert await receive() == disconnect(1006)

    response = await answer_of(target_of(app), Client().request)
    assert (response.status, response.body) == (401, b"who are you")
    assert response.fields == [(b"www-authenticate", b"x"), (b"Content-Length", b"11")]


# --- messages


@pytest.mark.parametrize("compress", [True, False])
async def test_text_and_binary_go_both_ways(compress: bool) -> None:
    """Empty, small, and up to the limit; compressed where the client offers it."""
    async with open_to(echo, compress=compress) as client:
        assert bool(client.protocol.extensions) == compress
        for text in ("", "caf\u00e9 \U0001f40e", "x" * LIMIT):
            client.protocol.send_text(text.encode())
            assert await client.text() == text
        for data in (b"", bytes(range(256)), bytes(LIMIT)):
            client.protocol.send_binary(data)
            frame = await client.frame()
            assert (frame.opcode, bytes(frame.data)) == (Opcode.BINARY, data)
        client.protocol.send_close(1000)
        client.flush()
        await client.closed()


async def test_a_message_in_fragments_is_one_message() -> None:
    """Split anywhere, also within a character, with pings between; byte by byte as well."""
    log = Log()
    async with open_to(log, compress=False) as client:
        text = "\u20ac\u20ac".encode()
        frames = [
            masked(1, text[:1], fin=False),
            masked(9, b"are you there"),
            masked(0, text[1:4], fin=False),
            masked(0, text[4:]),
            masked(2, b"a", fin=False),
            masked(0, b"", fin=False),
            masked(0, b"b"),
        ]
        client.raw(*(bytes([byte]) for byte in b"".join(frames)))
        assert (await client.frame()) == Frame(Opcode.PONG, b"are you there")
        client.raw(masked(8, b"\x03\xe8"))
        assert (await client.closed()).code == 1000
        client.body.end()
    assert log.events == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "\u20ac\u20ac"},
        {"type": "websocket.receive", "bytes": b"ab"},
        disconnect(1000),
    ]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([masked(1, b"\xff")], 1007),
        ([masked(1, b"\xe2", fin=False), masked(0, b"x", fin=False)], 1007),
        ([masked(1, b"\xe2")], 1007),
        ([masked(8, b"\x03\xe8\xff")], 1007),
        ([masked(0, b"x")], 1002),
        ([masked(1, b"x", fin=False), masked(1, b"x")], 1002),
        ([masked(3)], 1002),
        ([masked(8, b"\x03")], 1002),
        ([masked(8, b"\x03\xed")], 1002),
        ([b"\x81\x01x"], 1002),
        ([bytes([0x82, 0xFF]) + (LIMIT + 1).to_bytes(8, "big")], 1009),
    ],
)
async def test_a_client_that_breaks_the_protocol_is_told_how(frames: list[bytes], code: int) -> None:
    """What came before is delivered; the application reads the same code."""
    log = Log()
    async with open_to(log, compress=False) as client:
        client.raw(masked(1, b"before") + b"".join(frames))
        assert (await client.closed()).code == code
    assert log.events[1] == {"type": "websocket.receive", "text": "before"}
    assert [event.get("code") for event in log.events[2:]] == [code]


async def test_a_compressed_message_over_the_limit_is_not_unpacked() -> None:
    """Nor is one whose fragments are over it together."""
    for parts in ([bytes(LIMIT + 1)], [bytes(LIMIT), b"x"]):
        log = Log()
        async with open_to(log) as client:
            client.protocol.send_binary(parts[0], fin=len(parts) == 1)
            for part in parts[1:]:
                client.protocol.send_continuation(part, fin=True)
            client.flush()
            assert (await client.closed()).code == 1009
        assert [event.get("code") for event in log.events[1:]] == [1009]


async def test_the_client_is_not_read_further_than_the_application_is() -> None:
    """Some messages wait in the worker, the rest with the client; none is lost, pings among the first are answered."""
    log = Log()
    log.go_on.clear()
    async with open_to(log, compress=False) as client:
        client.raw(masked(9, b"1"))
        for number in range(100):
            client.raw(masked(1, b"%d" % number))
        client.raw(masked(9, b"2"), masked(8))
        assert (await client.frame()) == Frame(Opcode.PONG, b"1")
        left = -1
        while left != len(client.body._pieces):
            left = len(client.body._pieces)
            await asyncio.wait((client.running,), timeout=0.02)
        assert left > 80
        client.look()
        assert client.frames == []
        log.go_on.set()
        assert (await client.frame()) == Frame(Opcode.PONG, b"2")
        await client.closed()
    assert [event.get("text") for event in log.events[1:-1]] == [str(number) for number in range(100)]
    assert log.events[-1] == disconnect(1005)


async def test_send_waits_for_a_client_that_does_not_read() -> None:
    """What waits in the worker is bounded, and leaves in order as the client reads."""
    sent = 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(ACCEPT)
        for sent in range(200):
            await send({"type": "websocket.send", "bytes": sent.to_bytes(2, "big") * 5000})

    async with open_to(app, compress=False, credit=0) as client:
        await until(lambda: sent)
        before = -1
        while before != sent:
            before = sent
            await asyncio.wait((client.running,), timeout=0.02)
        assert sent < 50
        client.answer.grant(PLENTY)
        for number in range(200):
            frame = await client.frame()
            assert frame.data[:2] == number.to_bytes(2, "big")
        await client.closed()


async def test_a_send_that_is_given_up_leaves_the_connection_whole() -> None:
    """Its message was taken over: the frames behind it, and their compression, count on it."""
    texts = [random.Random(number).randbytes(20_000).hex() for number in range(20)]
    given_up = 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal given_up
        await send(ACCEPT)
        for text in texts:
            try:
                await asyncio.wait_for(send({"type": "websocket.send", "text": text}), 0.005)
            except TimeoutError:
                given_up += 1
        client.answer.grant(PLENTY)

    async with open_to(app, compress=True, credit=0) as client:
        for text in texts:
            assert await client.text() == text
        await client.closed()
    assert given_up


# --- the end


@pytest.mark.parametrize(
    ("sent", "told"), [((1000, "bye"), (1000, "bye")), ((4321, "\u20ac"), (4321, "\u20ac")), ((), (1005, ""))]
)
async def test_the_client_closes(sent: tuple[Any, ...], told: tuple[int, str]) -> None:
    """Its code is answered, and told to the application, with the reason."""
    log = Log()
    async with open_to(log) as client:
        client.protocol.send_text(b"last")
        client.protocol.send_close(*sent)
        client.flush()
        assert (await client.closed()).code == told[0]
    assert log.events[1:] == [{"type": "websocket.receive", "text": "last"}, disconnect(*told)]


async def test_the_answer_does_not_wait_for_what_the_application_does_after_the_close() -> None:
    """But the call does: the scope "lives as long as the socket itself"."""
    release = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await receive()
        await receive()
        await release.wait()

    async with open_to(app) as client:
        client.protocol.send_close(1000)
        client.flush()
        await until(lambda: client.answer.complete)
        release.set()
        await client.closed()


async def test_bytes_that_end_without_a_close_are_told_as_1006() -> None:
    """A client whose network went."""
    log = Log()
    async with open_to(log) as client:
        client.body.end()
    assert log.events[1:] == [disconnect(1006)]


@pytest.mark.parametrize(
    ("close", "code", "reason"),
    [
        (CLOSE, 1000, ""),
        ({**CLOSE, "code": 3000, "reason": "enough"}, 3000, "enough"),
        ({**CLOSE, "reason": None}, 1000, ""),
    ],
)
async def test_the_application_closes(close: dict[str, Any], code: int, reason: str) -> None:
    """The answer ends when the client has answered the Close; what the client said before that is dropped."""
    events: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send(close)
        events.append(await receive())

    client = Client(compress=False)
    call = client.call(target_of(app))
    await until(lambda: events)
    client.raw(masked(1, b"too late"))
    await until(lambda: not client.body._pieces)
    assert not client.answer.finished
    assert await client.closed() == Close(code, reason)
    await asyncio.wait_for(call, 10)
    assert client.answer.complete
    assert events == [disconnect(code, reason)]


async def test_a_client_that_does_not_answer_the_close_is_not_waited_for() -> None:
    """For longer than the timeout."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await send(CLOSE)

    client = Client()
    await asyncio.wait_for(client.call(target_of(app, close_timeout=CLOSE_TIMEOUT)), 10)
    assert client.answer.complete
    assert await client.closed() == Close(1000, "")


async def test_an_application_that_raises_ends_the_connection_by_1011() -> None:
    """In order, and then it is told to whoever runs it."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        raise KeyError("price")

    with pytest.raises(AppRaised, match="KeyError: 'price'"):
        async with open_to(app) as client:
            assert (await client.closed()).code == 1011
    assert client.answer.complete


@pytest.mark.parametrize(
    ("fails", "error", "text"),
    [
        (True, AppRaised, "KeyError: 'price'"),
        (False, BadResponse, "returned without accepting or closing the WebSocket"),
    ],
)
async def test_an_application_that_ends_in_the_handshake_has_no_response(
    fails: bool, error: type[Exception], text: str
) -> None:
    """Nothing has left yet."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        if fails:
            raise KeyError("price")

    client = Client()
    with pytest.raises(error, match=text):
        await client.call(target_of(app))
    assert not client.answer.started


async def test_sending_to_a_client_that_is_gone_is_an_oserror_and_no_failure() -> None:
    """Also where the application lets it pass."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await receive()
        await receive()
        with pytest.raises(OSError, match="the client is gone"):
            await send(CLOSE)
        await send({"type": "websocket.send", "text": "hello?"})

    async with open_to(app) as client:
        client.protocol.send_close(1000)
        client.flush()
        await client.closed()


async def test_draining_closes_every_socket_by_1001() -> None:
    """The application is disconnected with the same code, behind the messages that it has not read yet."""
    log = Log()
    target = target_of(log)
    clients = [Client(), Client()]
    calls = [client.call(target) for client in clients]
    for client in clients:
        await client.opened()
    target.drain()
    target.drain()
    for client in clients:
        assert (await client.closed()).code == 1001
    await asyncio.wait_for(asyncio.gather(*calls), 10)
    assert [event for event in log.events if event["type"] == "websocket.disconnect"] == [disconnect(1001)] * 2


async def test_draining_leaves_a_handshake_alone() -> None:
    """It may still be denied, or accepted."""
    release = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await release.wait()
        await send(CLOSE)

    target, client = target_of(app), Client()
    call = client.call(target)
    await asyncio.sleep(0)
    target.drain()
    release.set()
    await call
    assert client.answer.head is not None
    assert client.answer.head.status == 403


async def test_cancelling_disconnects_the_application_and_then_cancels_it() -> None:
    """1006, a moment to stop by itself, and the end of everything that was begun for it."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        seen.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "hello?"})
        except OSError as error:
            seen.append(str(error))
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    client = Client()
    before = asyncio.all_tasks()
    call = client.call(target_of(app))
    await client.opened()
    client.answer.abandon()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert seen == [disconnect(1006), "the client is gone", "cancelled"]
    await until(lambda: asyncio.all_tasks() <= before)


# --- keeping alive


async def test_a_client_that_answers_pings_stays() -> None:
    """For many intervals."""
    log = Log()
    async with open_to(log, times={"ping_interval": 0.01, "ping_timeout": 5.0}) as client:
        for _ in range(5):
            assert (await client.frame()).opcode is Opcode.PING
        client.protocol.send_close(1000)
        client.flush()
        await client.closed()
    assert log.events[1:] == [disconnect(1000)]


async def test_a_client_that_does_not_answer_pings_is_dropped() -> None:
    """By 1011, as other servers do."""
    log = Log()
    async with open_to(log, times={"ping_interval": 0.01, "ping_timeout": 0.05}) as client:
        await until(lambda: client.answer.complete)
        assert await client.closed() == Close(1011, "keepalive ping timeout")
    assert log.events[1:] == [disconnect(1011, "keepalive ping timeout")]


async def test_a_slow_application_does_not_cost_its_client_the_connection() -> None:
    """The pong is behind messages that nobody has read yet."""
    log = Log()
    log.go_on.clear()
    async with open_to(log, compress=False, times={"ping_interval": 0.01, "ping_timeout": 0.02}) as client:
        client.raw(*(masked(1, b"x") for _ in range(40)))
        await client.frame()
        await asyncio.wait((client.running,), timeout=0.2)
        assert not client.answer.finished
        log.go_on.set()
        client.protocol.send_close(1000)
        client.flush()
        await client.closed()
    assert log.events[-1] == disconnect(1000)
    assert len(log.events) == 42


async def test_a_client_that_never_reads_is_lost() -> None:
    """Nothing moves, so not even its Close can be waited for."""
    events: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "websocket.send", "bytes": bytes(50_000)})
        events.append(await receive())

    client = Client(compress=False, credit=0)
    call = client.call(target_of(app, ping_interval=0.01, ping_timeout=0.05))
    with pytest.raises(ConnectionError, match="has read nothing"):
        await asyncio.wait_for(call, 10)
    assert [event["code"] for event in events] == [1011]
    client.answer.abandon()


# --- what applications do wrong


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"type": "websocket.send", "text": "x"}], "'websocket.send' sent before 'websocket.accept'"),
        ([{"type": "http.response.start"}], "'http.response.start' is not a message of a WebSocket"),
        ([{}], "None is not a message of a WebSocket"),
        ([{**ACCEPT, "subprotocol": b"chat"}], "subprotocol b'chat' is not an ASCII string"),
        ([{**ACCEPT, "headers": [("a", "b")]}], "headers are not an iterable of (bytes, bytes) pairs"),
        ([{**ACCEPT, "headers": [(b"a b", b"c")]}], "field name b'a b' is not a token"),
        ([{**ACCEPT, "headers": [(b"sec-websocket-protocol", b"c")]}], "is the server's own"),
        ([{"type": "websocket.http.response.body"}], "is not a message of a WebSocket"),
        ([{"type": "websocket.http.response.start", "status": 101}] * 2, "second 'websocket.http.response.start'"),
        (
            [{"type": "websocket.http.response.start", "status": "x"}],
            "of 'websocket.http.response.start' is not an int",
        ),
        ([{"type": "websocket.http.response.start", "status": 400}, ACCEPT], "is not a message of an HTTP response"),
        ([{"type": "websocket.http.response.start", "status": 400}], "without completing its response"),
    ],
)
async def test_every_misuse_in_the_handshake_is_named(messages: list[Any], text: str) -> None:
    """There is no response then, but for one that was begun."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    client = Client()
    with pytest.raises(BadResponse) as caught:
        await client.call(target_of(app))
    assert text in str(caught.value)
    client.answer.abandon()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (ACCEPT, "second 'websocket.accept'"),
        ({"type": "websocket.send"}, "'websocket.send' has neither of text and bytes"),
        ({"type": "websocket.send", "text": None, "bytes": None}, "has neither of text and bytes"),
        ({"type": "websocket.send", "text": "", "bytes": b""}, "has both of text and bytes"),
        ({"type": "websocket.send", "text": b""}, "text is bytes, not str"),
        ({"type": "websocket.send", "bytes": "x"}, "bytes is str, not bytes"),
        ({"type": "websocket.send", "text": "\ud800"}, "text cannot be encoded as UTF-8"),
        ({**CLOSE, "code": 1005}, "cannot close with code 1005"),
        ({**CLOSE, "code": "1000"}, "code '1000' and reason '' of 'websocket.close' are not int and str"),
        ({**CLOSE, "code": 70_000}, "cannot close with code 70000"),
        ({**CLOSE, "reason": "x" * 124}, "control frame too long"),
        ({**CLOSE, "reason": b"x"}, "are not int and str"),
        ({"type": "websocket.http.response.start"}, "is not a message of a WebSocket"),
        ({"type": "websocket.foo"}, "'websocket.foo' is not a message of a WebSocket"),
    ],
)
@pytest.mark.parametrize("hides", [True, False])
async def test_every_misuse_of_an_open_socket_is_named(message: Any, text: str, hides: bool) -> None:
    """The client gets 1011, also where the application hides its error and goes on for ever."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        try:
            await send(message)
        except BadResponse:
            if not hides:
                raise
            await asyncio.Event().wait()

    with pytest.raises(BadResponse) as caught:
        async with open_to(app) as client:
            assert (await client.closed()).code == 1011
    assert text in str(caught.value)
    assert client.answer.complete


@pytest.mark.parametrize("late", [{"type": "websocket.send", "text": "x"}, CLOSE, ACCEPT])
async def test_what_is_sent_after_the_close_is_named_and_changes_nothing(late: Any) -> None:
    """The client has the code that it was sent first."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await send({**CLOSE, "code": 3000})
        await send(late)

    with pytest.raises(BadResponse, match="sent after the WebSocket was closed"):
        async with open_to(app) as client:
            assert (await client.closed()).code == 3000
    assert client.answer.complete


async def test_receiving_after_the_disconnect_is_named() -> None:
    """There is nothing more to wait for."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        assert (await receive())["type"] == "websocket.disconnect"
        await receive()

    client = Client()
    call = client.call(target_of(app))
    await client.opened()
    client.protocol.send_close(1000)
    assert (await client.closed()).code == 1000
    with pytest.raises(BadResponse, match=r"receive called after 'websocket.disconnect'"):
        await asyncio.wait_for(call, 10)
    assert client.answer.complete


# --- frameworks


async def test_a_fastapi_application_talks() -> None:
    """Accepts with a subprotocol, echoes JSON, closes with a code; denies another path."""
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()

    @app.websocket("/a b")  # type: ignore[untyped-decorator]
    async def talk(socket: fastapi.WebSocket) -> None:  # type: ignore[name-defined]
        await socket.accept(subprotocol="chat")
        async for message in socket.iter_json():
            await socket.send_json({"got": message})
            if message == "enough":
                await socket.close(4000, "as you like")
                break

    target, client = target_of(app), Client(subprotocols=["chat"])
    await target.start()
    call = client.call(target)
    await client.opened()
    assert client.protocol.subprotocol == "chat"
    client.protocol.send_text(b'{"a": 1}')
    assert await client.text() == '{"got":{"a":1}}'
    client.protocol.send_text(b'"enough"')
    assert await client.text() == '{"got":"enough"}'
    assert await client.closed() == Close(4000, "as you like")
    await asyncio.wait_for(call, 10)
    other = Client().request
    denied = await answer_of(target, Request("GET", b"/nowhere", other.fields, upgrade="websocket"))
    assert denied.status == 403
    await target.stop()
