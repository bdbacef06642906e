"""The demonstration application, called as an ASGI server calls it."""

import asyncio
import hashlib
import json
import signal
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rabbitbal.worker.targets import load_target

DIRECTORY = Path(__file__).parents[3] / "compose" / "demo"

Message = dict[str, Any]
GONE: Message = {"type": "http.disconnect"}
BODYLESS: tuple[Message, ...] = ({"type": "http.request", "body": b""},)


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr("sys.path", [str(DIRECTORY)])
    monkeypatch.delitem(__import__("sys").modules, "demo", raising=False)
    monkeypatch.setenv("RABBITBAL_WORKER_ID", "worker<1>")
    return __import__("demo")


class Exchange:
    """One request under way, or one WebSocket. Messages to the application wait in ``incoming``."""

    def __init__(self, demo: ModuleType, target: bytes, *incoming: Message, **scope: Any) -> None:
        path, _, query = target.partition(b"?")
        known = {"type": "http", "method": "GET", "headers": [], "raw_path": path, "path": path.decode()}
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        for message in incoming:
            self.incoming.put_nowait(message)
        self.sent: list[Message] = []
        self._news = asyncio.Event()
        self.task = asyncio.create_task(
            demo.app({**known, "query_string": query, **scope}, self.incoming.get, self._send)
        )

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        self._news.set()
        await asyncio.sleep(0)

    async def next(self, number: int) -> Message:
        """The message of this number, from 0, once the application has sent it."""
        async with asyncio.timeout(10):
            while len(self.sent) <= number:
                self._news.clear()
                await self._news.wait()
        return self.sent[number]

    async def through(self) -> "Exchange":
        await asyncio.wait_for(asyncio.shield(self.task), 10)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def media_type(self) -> bytes:
        return bytes(dict(self.sent[0]["headers"])[b"content-type"])

    @property
    def body(self) -> bytes:
        assert [message.get("more_body", False) for message in self.sent[1:]] == [True] * (len(self.sent) - 2) + [False]
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def body(*parts: bytes) -> list[Message]:
    last = len(parts) - 1
    return [{"type": "http.request", "body": part, "more_body": n < last} for n, part in enumerate(parts)]


async def get(demo: ModuleType, target: bytes) -> Exchange:
    return await Exchange(demo, target, *body(b"")).through()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_a_worker_can_run_it(demo: ModuleType) -> None:
    """As RABBITBAL_APP names it."""
    target = load_target("demo:app", str(DIRECTORY), None, 4)
    await target.start()
    await target.stop()


async def test_the_first_page_names_its_worker_and_links_the_others(demo: ModuleType) -> None:
    """It needs nothing else from anywhere."""
    exchange = await get(demo, b"/")
    page = exchange.body.decode()
    assert (exchange.status, exchange.media_type) == (200, b"text/html; charset=utf-8")
    assert "worker&lt;1&gt;" in page
    assert 'href="/whoami"' in page
    assert "http://" not in page
    assert "https://" not in page


async def test_whoami_names_the_worker(demo: ModuleType) -> None:
    """As plain text."""
    assert (await get(demo, b"/whoami")).body == b"worker<1>\n"


async def test_work_takes_its_time(demo: ModuleType) -> None:
    """At least as long as was asked for."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    exchange = await get(demo, b"/work?ms=30")
    assert json.loads(exchange.body) == {"worker": "worker<1>", "ms": 30}
    assert loop.time() - before >= 0.029


async def test_echo_shows_the_request_as_it_came(demo: ModuleType) -> None:
    """Method, target, the pairs of fields in order, the body as text."""
    fields = [(b"host", b"h"), (b"x-b", b"1"), (b"x-a", b"caf\xe9"), (b"x-b", b"2")]
    parts = body(b"\xc3", b"\xa9")
    exchange = await Exchange(demo, b"/echo?a=%20&a", *parts, method="PATCH", headers=fields).through()
    expected = {
        "method": "PATCH",
        "target": "/echo?a=%20&a",
        "headers": [["host", "h"], ["x-b", "1"], ["x-a", "caf\u00e9"], ["x-b", "2"]],
        "body": "\u00e9",
    }
    assert expected == json.loads(exchange.body)


async def test_echo_shows_bytes_that_are_no_text_in_base64(demo: ModuleType) -> None:
    """JSON has no bytes."""
    exchange = await Exchange(demo, b"/echo", *body(b"\xff\x00")).through()
    assert json.loads(exchange.body)["body"] == {"base64": "/wA="}


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
async def test_bytes_has_the_size_that_was_asked_for(demo: ModuleType, size: int) -> None:
    """And the same content each time."""
    exchange = await get(demo, b"/bytes/%d" % size)
    assert (bytes(range(256)) * 1000)[:size] == exchange.body
    assert exchange.media_type == b"application/octet-stream"


async def test_bytes_holds_one_block_at_a_time(demo: ModuleType) -> None:
    """Every message but the last is the same 64 KiB, whatever the size."""
    exchange = await get(demo, b"/bytes/1000000")
    assert {id(message["body"]) for message in exchange.sent[1:-1]} == {id(demo.BLOCK)}


@pytest.mark.parametrize("parts", [[b""], [b"abc"], [b"a", b"", b"bc"], [b"x" * 65536] * 20])
async def test_digest_reads_a_body_in_pieces(demo: ModuleType, parts: list[bytes]) -> None:
    """Its length and SHA-256."""
    exchange = await Exchange(demo, b"/digest", *body(*parts), method="POST").through()
    whole = b"".join(parts)
    assert json.loads(exchange.body) == {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}


@pytest.mark.parametrize("target", [b"/digest?key=k", b"/echo?key=k"])
async def test_a_body_without_its_end_is_not_answered(
    demo: ModuleType, capsys: pytest.CaptureFixture[str], target: bytes
) -> None:
    """The client left in its middle."""
    half = {"type": "http.request", "body": b"half", "more_body": True}
    exchange = await Exchange(demo, target, half, GONE, method="POST").through()
    assert exchange.sent == []
    assert [line["event"] for line in lines(capsys)] == ["ran", "gone"]


async def test_stream_sends_its_chunks(demo: ModuleType) -> None:
    """As many as were asked for."""
    assert (await get(demo, b"/stream?chunks=2&ms=1")).body == b"chunk 1 of 2\nchunk 2 of 2\n"


async def test_sse_sends_events_with_their_times(demo: ModuleType) -> None:
    """Numbered, one message each, with the nanosecond at which it was sent."""
    before = time.time_ns()
    exchange = await get(demo, b"/sse?events=3&ms=1")
    assert exchange.media_type == b"text/event-stream"
    events = [message["body"].decode().split("\n") for message in exchange.sent[1:-1]]
    assert [event[0] for event in events] == ["id: 1", "id: 2", "id: 3"]
    times = [int(event[1].removeprefix("data: ")) for event in events]
    moments = [before, *times, time.time_ns()]
    assert moments == sorted(moments)
    assert all(event[2:] == ["", ""] for event in events)
    assert exchange.body.endswith(b"\n\n")


async def test_sse_of_no_events_ends_at_once(demo: ModuleType) -> None:
    """An empty body with an end."""
    assert (await get(demo, b"/sse?events=0")).body == b""


@pytest.mark.parametrize("how", ["message", "cancelled", "send"])
async def test_sse_stops_when_its_client_leaves(
    demo: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """However the server says so; with a key, a line says when."""
    ms = b"1" if how == "send" else b"60000"
    exchange = Exchange(demo, b"/sse?events=1000000&key=k&ms=" + ms, *body(b""))
    await exchange.next(1)
    left = time.time()
    if how == "message":
        exchange.incoming.put_nowait(GONE)
        await exchange.through()
    elif how == "cancelled":
        exchange.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange.task
    else:

        class Refusing(list[Message]):
            def append(self, message: Message) -> None:
                raise OSError("the connection is closed")

        exchange.sent = Refusing(exchange.sent)
        await exchange.through()
    ran, gone = lines(capsys)
    assert ran == {"event": "ran", "key": "k", "ms": int(ms)}
    assert (gone["event"], gone["key"], gone["code"]) == ("gone", "k", None)
    assert left - 0.1 <= gone["at"] <= time.time()


CONNECT: Message = {"type": "websocket.connect"}


def received(**message: Any) -> Message:
    return {"type": "websocket.receive", **message}


def websocket(demo: ModuleType, target: bytes, *incoming: Message, offered: tuple[str, ...] = ()) -> Exchange:
    return Exchange(demo, target, CONNECT, *incoming, type="websocket", subprotocols=list(offered))


async def test_ws_sends_back_what_it_gets(demo: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Text as text, bytes as bytes; with a key, a line has the code with which the client closed."""
    goodbye = {"type": "websocket.disconnect", "code": 4002}
    exchange = websocket(demo, b"/ws?key=k", received(text="\u00e9"), received(bytes=b"\xff", text=None), goodbye)
    accept, first, second = (await exchange.through()).sent
    assert accept == {"type": "websocket.accept", "subprotocol": None}
    assert first == {"type": "websocket.send", "text": "\u00e9"}
    assert second == {"type": "websocket.send", "bytes": b"\xff", "text": None}
    ran, gone = lines(capsys)
    assert (ran["event"], gone["event"], gone["code"]) == ("ran", "gone", 4002)


@pytest.mark.parametrize(
    ("offered", "chosen"), [((), None), (("chat",), "chat"), (("a", "echo", "chat"), "echo"), (("a", "b"), None)]
)
async def test_ws_chooses_the_first_subprotocol_that_it_knows(
    demo: ModuleType, offered: tuple[str, ...], chosen: str | None
) -> None:
    """Or none."""
    exchange = websocket(demo, b"/ws", offered=offered)
    assert (await exchange.next(0))["subprotocol"] == chosen
    exchange.task.cancel()


async def test_ws_closes_as_the_query_asks(demo: ModuleType) -> None:
    """After the first message."""
    exchange = await websocket(demo, b"/ws?close=4001", received(text="x")).through()
    assert exchange.sent[1:] == [{"type": "websocket.close", "code": 4001, "reason": "as the query asked"}]


@pytest.mark.parametrize("target", [b"/nothing", b"/sse", b"/ws?close=x", b"/ws?close=5000"])
async def test_other_websockets_are_refused(demo: ModuleType, target: bytes) -> None:
    """Closed before they are accepted: 403."""
    assert (await websocket(demo, target).through()).sent == [{"type": "websocket.close"}]


async def test_lifespan_is_not_supported(demo: ModuleType) -> None:
    """Which a server learns by an error."""
    with pytest.raises(NotImplementedError):
        await Exchange(demo, b"/", type="lifespan").through()


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"200 OK\n"), (204, b""), (304, b""), (418, b"418 I'm a Teapot\n"), (599, b"599 \n")]
)
async def test_status_answers_with_it(demo: ModuleType, status: int, body: bytes) -> None:
    """From 200 to 599."""
    exchange = await get(demo, b"/status/%d" % status)
    assert (status, body.lower()) == (exchange.status, exchange.body.lower())


@pytest.mark.parametrize(
    "target",
    [b"/work?ms=x", b"/work?ms=-1", b"/work?ms=600001", b"/work?ms=1_0", b"/bytes/", b"/bytes/9999999999",
     b"/status/199", b"/status/600", b"/status/", b"/stream?chunks=1e3", b"/stream?ms=60001", b"/sse?events=1000001",
     b"/sse?ms=-1"],
)  # fmt: skip
async def test_bad_numbers_are_refused(demo: ModuleType, target: bytes) -> None:
    """With 400 and the bounds."""
    exchange = await get(demo, target)
    assert exchange.status == 400
    assert b"is not a number from" in exchange.body


async def test_digits_of_other_scripts_are_no_numbers(demo: ModuleType) -> None:
    """`int` would take some of them."""
    assert (await Exchange(demo, b"/bytes/2", *body(b""), path="/bytes/\u00b2").through()).status == 400


@pytest.mark.parametrize("target", [b"/nothing", b"/whoami/", b"/bytes", b"//", b"*", b"/ws"])
async def test_there_are_no_other_pages(demo: ModuleType, target: bytes) -> None:
    """404."""
    assert (await get(demo, target)).status == 404


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/work?ms=1&key=abc", {"event": "ran", "key": "abc", "ms": 1}),
        (b"/whoami?key=a%22b", {"event": "ran", "key": 'a"b', "ms": 0}),
        (b"/count/xyz", {"event": "ran", "key": "xyz", "ms": 0}),
    ],
)
async def test_a_request_with_a_key_prints_that_it_runs(
    demo: ModuleType, capsys: pytest.CaptureFixture[str], target: bytes, expected: dict[str, Any]
) -> None:
    """One JSON line on standard output, so that executions can be counted across processes."""
    await get(demo, target)
    assert [expected] == lines(capsys)


async def test_a_key_is_printed_at_the_start_of_the_run(demo: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that dies in the middle has run it too."""
    exchange = Exchange(demo, b"/work?ms=600000&key=k", *body(b""))
    await asyncio.wait((exchange.task,), timeout=0.02)
    assert [line["key"] for line in lines(capsys)] == ["k"]
    exchange.task.cancel()


async def test_a_request_without_a_key_prints_nothing(demo: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """The log stays readable."""
    await get(demo, b"/whoami")
    assert lines(capsys) == []


async def test_crash_kills_its_own_process(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SIGKILL, which nobody can catch (nor this test: the call is recorded)."""
    killed = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append((pid, number)))
    monkeypatch.setattr("os.getpid", lambda: 4711)
    assert (await get(demo, b"/crash")).sent == []
    assert killed == [(4711, signal.SIGKILL)]


@pytest.mark.parametrize("folder", ["/catalog", "/reports"])
async def test_all_pages_are_below_the_folders_too(demo: ModuleType, folder: str) -> None:
    """So that a route can tell them apart, and the answer is the same."""
    for target in ("/whoami", "/work?ms=1", "/bytes/10", "/status/418", "/count/k"):
        plain = await Exchange(demo, target.encode(), *BODYLESS).through()
        below = await Exchange(demo, (folder + target).encode(), *BODYLESS).through()
        assert plain.sent == below.sent
    home = await Exchange(demo, folder.encode(), *BODYLESS).through()
    assert home.sent[0]["status"] == 200
    missing = await Exchange(demo, folder.encode() + b"x/whoami", *BODYLESS).through()
    assert missing.sent[0]["status"] == 404


async def test_a_group_of_workers_can_be_slower(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """DEMO_SLOWNESS; what the page says is what it was asked for."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    assert demo.SLOWNESS == 1
    monkeypatch.setattr(demo, "SLOWNESS", 10.0)
    monkeypatch.setattr(demo.asyncio, "sleep", sleep)
    visit = demo.Visit({}, None, _nowhere, "", {"ms": "20"})
    await demo.work(visit)
    assert slept == [0.2]


async def _nowhere(message: Message) -> None: ...
