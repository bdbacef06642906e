"""The ASGI target: the scope that an application sees, and every way in which it can answer or fail to."""

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from rabbitbal.wire.fields import Field
from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets import AppRaised, BadResponse, TargetError
from rabbitbal.worker.targets.asgi import AsgiTarget
from tests.harness import Pieces, Recorder, answer_of, until

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"hello"}
GET = Request("GET", b"/")


def target_of(app: Any, **options: Any) -> AsgiTarget:
    return AsgiTarget(app, slots=2, streams=2, websocket_limit=1000, **options)


class Known(Pieces):
    """A body that is here as a whole, and knows it."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(*pieces)
        self.end()

    @property
    def ended(self) -> bool:
        return not self._pieces


def sends(*messages: Any) -> Any:
    """An application that sends these messages and returns."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


async def answer(*messages: Any, method: str = "GET") -> Response:
    return await answer_of(target_of(sends(*messages)), Request(method, b"/"))


async def scope_of(request: Request) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.update(scope)
        await send(START)
        await send(BODY)

    await answer_of(target_of(app), request)
    return seen


async def test_the_scope_describes_the_request() -> None:
    """Every key of the specification, and nothing that differs from it."""
    fields = [
        (b"Host", b"example.org:8080"),
        (b"X-Forwarded-For", b"2001:db8::1, 10.0.0.1"),
        (b"X-Forwarded-Proto", b"https"),
        (b"Cookie", b"a=1"),
        (b"X-One", b"1"),
        (b"Cookie", b"b=2"),
    ]
    expected = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": "/caf\u00e9/a b",
        "raw_path": b"/caf%C3%A9/a%20b",
        "query_string": b"x=%20&y?z",
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in fields],
        "client": ("2001:db8::1", 0),
        "server": ("example.org", 8080),
        "state": {},
    }
    assert expected == await scope_of(Request("POST", b"/caf%C3%A9/a%20b?x=%20&y?z", fields))


async def test_what_the_request_does_not_tell_has_its_default() -> None:
    """No Host, no X-Forwarded fields."""
    scope = await scope_of(GET)
    assert (scope["scheme"], scope["client"], scope["server"], scope["query_string"]) == ("http", None, None, b"")


@pytest.mark.parametrize(
    ("host", "proto", "expected"),
    [
        (b"example.org", b"http", ("example.org", 80)),
        (b"example.org", b"HTTPS, http", ("example.org", 443)),
        (b"[::1]:9", b"http", ("::1", 9)),
        (b"example.org:", b"http", ("example.org", 80)),
        (b"a b", b"gopher", ("a b", 80)),
        (b"a:b:c", b"http", None),
        (b"", b"http", None),
    ],
)
async def test_the_server_is_what_the_client_asked_for(host: bytes, proto: bytes, expected: Any) -> None:
    """Host, with the scheme's port where it names none."""
    assert (
        expected == (await scope_of(Request("GET", b"/", [(b"Host", host), (b"X-Forwarded-Proto", proto)])))["server"]
    )


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        (b"/%FF", "/\ufffd", b"/%FF", b""),
        (b"/\xc3\xa9", "/\u00e9", b"/\xc3\xa9", b""),
        (b"/a%2Fb", "/a/b", b"/a%2Fb", b""),
        (b"/%", "/%", b"/%", b""),
        (b"//evil.example/x", "//evil.example/x", b"//evil.example/x", b""),
        (b"http://example.org/x?y", "/x", b"/x", b"y"),
        (b"http://example.org?y", "/", b"/", b"y"),
        (b"*", "*", b"*", b""),
    ],
)
async def test_the_path_is_decoded_and_its_bytes_are_kept(
    target: bytes, path: str, raw_path: bytes, query: bytes
) -> None:
    """Percent-escapes, then UTF-8; what is neither is replaced in `path` and survives in `raw_path`."""
    scope = await scope_of(Request("GET", target))
    assert (path, raw_path, query) == (scope["path"], scope["raw_path"], scope["query_string"])


async def test_the_body_is_received_once_and_then_the_end() -> None:
    """A receive after the response gives http.disconnect."""
    received = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        received.append(await receive())
        await send(START)
        await send(BODY)
        received.append(await receive())
        received.append(await receive())

    target = target_of(app)
    answer = Recorder(GET)
    await target(Request("POST", b"/", [], b"data"), Known(b"data"), answer)
    assert answer.body == b"hello"
    await target.stop()
    end = {"type": "http.disconnect"}
    assert [{"type": "http.request", "body": b"data", "more_body": False}, end, end] == received


async def test_receive_blocks_while_the_response_is_open() -> None:
    """So an application may watch for the client's going in a task of its own, and give that up."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        watching = asyncio.ensure_future(receive())
        await send(START)
        await asyncio.wait((watching,), timeout=0.01)
        assert not watching.done()
        watching.cancel()
        await asyncio.wait((watching,))
        await send(BODY)

    assert (await answer_of(target_of(app), GET)).body == b"hello"


async def test_the_response_is_what_the_application_sent() -> None:
    """Pieces are joined; order and repeats of fields survive; the length is added."""
    headers = [(b"set-cookie", b"a=1"), (b"x-y", b"z"), (b"set-cookie", b"b=2")]
    response = await answer(
        {**START, "status": 201, "headers": headers},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "more_body": True},
        {"type": "http.response.body", "body": bytearray(b"b"), "more_body": True},
        {"type": "http.response.body", "body": memoryview(b"c")},
    )
    assert Response(201, [*headers, (b"Content-Length", b"3")], b"abc") == response


async def test_hop_by_hop_fields_stay_behind() -> None:
    """They concern a connection that is not there (RFC 9110 §7.6.1)."""
    headers = [(b"connection", b"close, x-hop"), (b"x-hop", b"1"), (b"keep-alive", b"1"), (b"x-end", b"1")]
    response = await answer({**START, "headers": headers}, BODY)
    assert response.fields == [(b"x-end", b"1"), (b"Content-Length", b"5")]


async def test_head_keeps_the_length_and_drops_the_body() -> None:
    """RFC 9110 §9.3.2."""
    declared = [(b"content-length", b"5000")]
    big = {"type": "http.response.body", "body": bytes(5000)}
    assert Response(200, declared, b"") == await answer({**START, "headers": declared}, big, method="HEAD")
    assert Response(200, [], b"") == await answer(START, BODY, method="HEAD")


@pytest.mark.parametrize(("status", "kept"), [(204, []), (304, [(b"content-length", b"5")])])
async def test_no_content_and_not_modified_have_no_body(status: int, kept: list[Field]) -> None:
    """And 204 has no Content-Length (RFC 9110 §8.6)."""
    start = {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"5")]}
    assert Response(status, kept, b"") == await answer(start, BODY)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([], "returned without sending a response"),
        ([START], "returned without completing its response"),
        ([START, {**BODY, "more_body": True}], "returned without completing its response"),
        ([BODY], "'http.response.body' sent before 'http.response.start'"),
        ([START, START], "second 'http.response.start'"),
        ([{"type": "websocket.accept"}], "'websocket.accept' is not a message of an HTTP response"),
        ([{}], "None is not a message of an HTTP response"),
        ([{"type": "http.response.start"}], "status None of 'http.response.start' is not an integer"),
        ([{**START, "status": "200"}], "status '200' of 'http.response.start' is not an integer"),
        ([{**START, "status": 100}], "status 100 is not that of a final response"),
        ([{**START, "status": 600}], "status 600 is not that of a final response"),
        ([{**START, "headers": [("a", "b")]}], "headers are not an iterable of (bytes, bytes) pairs"),
        ([{**START, "headers": [b"ab", b"c"]}], "headers are not an iterable of (bytes, bytes) pairs"),
        ([{**START, "headers": None}], "headers are not an iterable of (bytes, bytes) pairs"),
        ([{**START, "headers": [(b"a b", b"c")]}], "invalid header: field name b'a b' is not a token"),
        ([{**START, "headers": [(b"a", b"b\r\nc: d")]}], "invalid header: value of field b'a' contains a control"),
        ([{**START, "headers": [(b"content-length", b"+5")]}, BODY], "invalid header: Content-Length is not a number"),
        ([{**START, "headers": [(b"content-length", b"6")]}, BODY], "Content-Length is 6 but the body has 5 bytes"),
        ([{**START, "headers": [(b"content-length", b"4")]}, BODY], "Content-Length is 4 but the body has 5 bytes"),
        ([START, {**BODY, "body": "text"}], "body is str, not bytes"),
        ([START, {**BODY, "body": None}], "body is NoneType, not bytes"),
    ],
)
async def test_every_misuse_is_named(messages: list[Any], text: str) -> None:
    """The text is for who wrote the application."""
    with pytest.raises(BadResponse) as caught:
        await answer(*messages)
    assert text in str(caught.value)


async def test_a_misuse_counts_although_the_application_hides_it() -> None:
    """Frameworks catch what `send` raises and answer something else: half of this, half of that."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        with contextlib.suppress(BadResponse):
            await send(BODY)
        with pytest.raises(BadResponse, match="sent before"):
            await send(START)

    with pytest.raises(BadResponse, match="sent before"):
        await answer_of(target_of(app), GET)


@pytest.mark.parametrize("before", [[], [START], [START, {**BODY, "more_body": True}]])
async def test_an_application_that_raises_before_the_end_has_no_response(before: list[Any]) -> None:
    """Not even the half that it sent: nothing has left yet."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await sends(*before)(scope, receive, send)
        raise KeyError("price")

    with pytest.raises(AppRaised, match="KeyError: 'price'") as caught:
        await answer_of(target_of(app), GET)
    assert isinstance(caught.value.__cause__, KeyError)


async def test_an_application_that_cancels_itself_has_raised() -> None:
    """That nobody asked for it must not look like a cancelled request."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with pytest.raises(AppRaised, match="cancelled itself"):
        await answer_of(target_of(app), GET)


@pytest.mark.parametrize(
    ("after", "logged"), [(ValueError("late"), "late"), (START, "'http.response.start' sent after the response")]
)
async def test_what_goes_wrong_after_the_end_is_logged_and_the_response_stands(after: Any, logged: str) -> None:
    """It may be with the client already."""
    log = CapturingLogger()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(BODY)
        if isinstance(after, Exception):
            raise after
        await send(after)

    target = target_of(app, log=log)
    assert (await answer_of(target, GET)).body == b"hello"
    await target.stop()
    (call,) = log.calls
    assert call.args[0] == "the application raised after its response"
    assert logged in str(call.kwargs["exc_info"])


async def test_a_response_does_not_wait_for_background_work() -> None:
    """And stopping does wait for it."""
    release, done = asyncio.Event(), []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(BODY)
        await release.wait()
        done.append(True)

    target = target_of(app)
    await answer_of(target, GET)
    assert not done
    release.set()
    await target.stop()
    assert done == [True]


async def test_background_work_is_bounded_by_the_slots() -> None:
    """With as many left behind as there are slots, the next request waits for one to end."""
    releases = [asyncio.Event() for _ in range(3)]
    started: list[int] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        mine = len(started)
        started.append(mine)
        await send(START)
        await send(BODY)
        await releases[mine].wait()

    target = target_of(app)
    await answer_of(target, GET)
    await answer_of(target, GET)
    third = asyncio.create_task(answer_of(target, GET))
    await asyncio.wait((third,), timeout=0.02)
    assert started == [0, 1]
    releases[1].set()
    assert (await third).status == 200
    assert started == [0, 1, 2]
    for release in releases:
        release.set()
    await target.stop()


async def test_stop_cancels_background_work_that_does_not_end() -> None:
    """After the grace."""
    log = CapturingLogger()
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(BODY)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    target = target_of(app, shutdown_grace=0.01, log=log)
    await answer_of(target, GET)
    await target.stop()
    await asyncio.wait_for(cancelled.wait(), 5)
    assert log.calls[0].args[0] == "cancelled what the application still did after its response"


async def test_pieces_of_a_body_are_received_as_they_come() -> None:
    """The first before the second is there; the end comes with the last where it is known by then."""
    received: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        more = True
        while more:
            received.append(await receive())
            more = received[-1]["more_body"]
        await send(START)
        await send(BODY)

    body, answer = Pieces(b"a"), Recorder(GET)
    request = asyncio.create_task(target_of(app)(Request("POST", b"/", [], b"a"), body, answer))
    for count, piece in enumerate((b"b", bytes(70_000)), 1):
        await until(lambda count=count: len(received) == count)  # type: ignore[misc]
        body.put(piece)
    body.end()
    await request
    assert [(event["body"], event["more_body"]) for event in received] == [
        (b"a", True),
        (b"b", True),
        (bytes(65_536), True),
        (bytes(70_000 - 65_536), False),
    ]


async def test_an_application_may_give_up_receiving_and_lose_nothing() -> None:
    """As `asyncio.wait_for` does; also where two of its tasks receive at once."""
    received: list[bytes] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.01)
        both = asyncio.gather(receive(), receive())
        body.put(b"a")
        body.put(b"b")
        received.extend(event["body"] for event in await both)
        await send(START)
        await send(BODY)

    body = Pieces()
    await target_of(app)(Request("POST", b"/"), body, Recorder(GET))
    assert sorted(received) == [b"a", b"b"]


async def test_a_response_before_the_end_of_the_upload_ends_the_receiving() -> None:
    """The rest of the body is not waited for."""
    events: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        reading = asyncio.ensure_future(receive())
        await send(START)
        await send(BODY)
        events.append(await reading)

    target, answer = target_of(app), Recorder(GET)
    await target(Request("POST", b"/"), Pieces(), answer)
    assert answer.complete
    await target.stop()
    assert events == [{"type": "http.disconnect"}]


async def test_an_upload_that_breaks_off_is_a_client_that_is_gone() -> None:
    """Not an error of the application, whatever it does about it."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.append((await receive())["body"])
        body.fail()
        seen.append((await receive())["type"])
        try:
            await send(START)
        except OSError as error:
            seen.append(str(error))
        raise ValueError("half a body")

    body, answer = Pieces(b"a"), Recorder(GET)
    with pytest.raises(ConnectionError):
        await target_of(app)(Request("POST", b"/", [], b"a"), body, answer)
    assert seen == [b"a", "http.disconnect", "the client is gone"]
    assert not answer.started


async def test_a_small_response_is_one_message() -> None:
    """Its head does not leave before its body."""
    answer = Recorder(GET)
    pieces = [{**BODY, "more_body": True}, {**BODY, "body": b"", "more_body": True}, BODY]
    await target_of(sends(START, *pieces))(GET, Known(), answer)
    assert answer.pieces == [b"hellohello"]
    assert answer.head == Response(200, [(b"Content-Length", b"10")], b"hellohello")


async def test_what_is_sent_leaves_while_the_application_goes_on() -> None:
    """First the head alone, so that a client of server-sent events is open before the first event."""
    step = asyncio.Queue[bytes]()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        while piece := await step.get():
            await send({**BODY, "body": piece, "more_body": True})
        await send({**BODY, "body": b""})

    answer = Recorder(GET)
    request = asyncio.create_task(target_of(app)(GET, Known(), answer))
    await until(lambda: answer.head)
    assert answer.head == Response(200, [], b"")
    sent = b""
    for piece in (b"a", bytes(200_000)):
        step.put_nowait(piece)
        sent += piece
        await until(lambda sent=sent: answer.body == sent)  # type: ignore[misc]
        assert not answer.finished
    step.put_nowait(b"")
    await request
    assert answer.complete


async def test_send_waits_for_a_client_that_reads_slowly() -> None:
    """What waits in the worker is bounded; the application goes on as the client reads."""
    sent = 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(START)
        for _ in range(100):
            await send({**BODY, "body": bytes(10_000), "more_body": True})
            sent += 1
        await send(BODY)

    answer = Recorder(GET, credit=0)
    request = asyncio.create_task(target_of(app)(GET, Known(), answer))
    await until(lambda: answer.head)
    await until(lambda: sent)
    before = -1
    while before != sent:
        before = sent
        await asyncio.wait((request,), timeout=0.05)
    assert sent * 10_000 < 300_000
    answer.grant(1 << 40)
    await request
    assert len(answer.body) == 1_000_005
    assert answer.complete


@pytest.mark.parametrize("hides", [True, False])
async def test_a_misuse_in_the_middle_of_a_stream_breaks_it(hides: bool) -> None:
    """Also where the application catches the error and goes on for ever."""
    cleaned: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"content-length", b"7")]})
        await send({**BODY, "more_body": True})
        await until(lambda: recorder.pieces)
        try:
            await send(BODY)
        except BadResponse:
            if not hides:
                raise
        cleaned.append((await receive())["type"])
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("cancelled")

    recorder = Recorder(GET)
    with pytest.raises(BadResponse, match="Content-Length is 7 but the body has 10 bytes"):
        await asyncio.wait_for(target_of(app)(GET, Known(), recorder), 10)
    assert recorder.body == b"hello"
    assert not recorder.finished
    assert cleaned == (["http.disconnect", "cancelled"] if hides else [])


async def test_an_application_that_raises_in_the_middle_of_a_stream_has_raised() -> None:
    """What left has left; whoever runs it breaks the stream."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send({**BODY, "more_body": True})
        await until(lambda: recorder.pieces)
        raise KeyError("price")

    recorder = Recorder(GET)
    with pytest.raises(AppRaised, match="KeyError: 'price'"):
        await target_of(app)(GET, Known(), recorder)
    assert recorder.started
    assert not recorder.finished


def running(app: Any, answer: Recorder | None = None) -> "asyncio.Task[None]":
    """A request that has begun."""
    return asyncio.create_task(target_of(app)(GET, Known(), answer or Recorder(GET)))


async def test_cancelling_reaches_the_application_and_is_not_swallowed() -> None:
    """The application cleans up before the slot is free; its detached readers see http.disconnect."""
    began, cleaned = asyncio.Event(), []
    readers: list[asyncio.Future[dict[str, Any]]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        readers.append(asyncio.ensure_future(receive()))
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.wait((asyncio.create_task(asyncio.Event().wait()),), timeout=0.01)
            cleaned.append(True)

    request = running(app)
    await began.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert cleaned == [True]
    assert await asyncio.wait_for(readers[0], 5) == {"type": "http.disconnect"}


async def test_an_application_that_stops_by_itself_is_not_cancelled() -> None:
    """It is told first: by http.disconnect, and by the OSError of the specification when it sends."""
    began, ended = asyncio.Event(), []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(START)
        began.set()
        try:
            ended.append((await receive())["type"])
            await send(BODY)
        except OSError as error:
            ended.append(str(error))

    answer = Recorder(GET)
    request = running(app, answer)
    await began.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert ended == ["http.disconnect", "the client is gone"]
    assert not answer.finished


async def test_a_second_cancel_does_not_free_the_slot_of_an_application_that_still_runs() -> None:
    """The deadline and the edge may both cancel."""
    began, cleaning, release, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await release.wait()
            cleaned.append(True)

    request = running(app)
    await began.wait()
    request.cancel()
    await cleaning.wait()
    request.cancel()
    await asyncio.wait((request,), timeout=0.02)
    assert not request.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert cleaned == [True]


async def test_a_send_that_waits_for_the_client_ends_when_the_client_goes() -> None:
    """As the runner does it: the answer is abandoned and the request cancelled."""
    waiting, raised = asyncio.Event(), []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            while True:
                waiting.set()
                await send({**BODY, "body": bytes(50_000), "more_body": True})
        except OSError as error:
            raised.append(str(error))

    answer = Recorder(GET, credit=0)
    request = running(app, answer)
    await waiting.wait()
    await until(lambda: answer.head)
    answer.abandon()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert raised == ["the client is gone"]


async def test_background_work_outlives_a_late_cancel() -> None:
    """The response was complete."""
    release = asyncio.Event()
    done: list[bool] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(BODY)
        request.cancel()
        await release.wait()
        done.append(True)

    target = target_of(app)
    request = asyncio.create_task(target(GET, Known(), Recorder(GET)))
    await asyncio.wait((request,))
    release.set()
    await target.stop()
    assert done == [True]


async def test_fastapi_streams_both_ways() -> None:
    """A framework with middleware between."""
    fastapi = pytest.importorskip("fastapi")
    responses = pytest.importorskip("fastapi.responses")
    app = fastapi.FastAPI()

    @app.post("/sum")  # type: ignore[untyped-decorator]
    async def total(request: fastapi.Request) -> dict[str, int]:  # type: ignore[name-defined]
        return {"size": sum([len(chunk) async for chunk in request.stream()])}

    @app.get("/count")  # type: ignore[untyped-decorator]
    async def count() -> Any:
        async def numbers() -> Any:
            for number in range(3):
                yield f"{number}\n"
                await until(lambda end=b"%d\n" % number: recorder.body.endswith(end))  # type: ignore[misc]

        return responses.StreamingResponse(numbers())

    target = target_of(app)
    await target.start()
    whole = await answer_of(target, Request("POST", b"/sum", [], b"ab"), bytes(300_000))
    assert whole.body == b'{"size":300002}'
    recorder = Recorder(GET)
    await target(Request("GET", b"/count"), Known(), recorder)
    assert recorder.body == b"0\n1\n2\n"
    assert recorder.complete
    await target.stop()


async def test_context_variables_of_the_caller_are_seen() -> None:
    """Log lines of the application carry what the consumer bound."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("set by the consumer")

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send({**BODY, "body": variable.get().encode()})

    assert (await answer_of(target_of(app), GET)).body == b"set by the consumer"


def with_lifespan(*, at_startup: Any = None, at_shutdown: Any = None, events: list[str] | None = None) -> Any:
    """An application with a lifespan that sends the given messages instead of the complete ones."""
    events = [] if events is None else events

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            body = repr(sorted(scope["state"])).encode()
            scope["state"]["intruder"] = 1
            await send(START)
            await send({**BODY, "body": body})
            return
        events.append((await receive())["type"])
        scope["state"]["pool"] = object()
        await send(at_startup or {"type": "lifespan.startup.complete"})
        if at_startup:
            return
        events.append((await receive())["type"])
        await send(at_shutdown or {"type": "lifespan.shutdown.complete"})

    return app


async def test_the_lifespan_starts_and_ends_the_application() -> None:
    """One startup, one shutdown."""
    events: list[str] = []
    target = target_of(with_lifespan(events=events))
    await target.start()
    assert events == ["lifespan.startup"]
    await target.stop()
    assert events == ["lifespan.startup", "lifespan.shutdown"]


async def test_requests_get_a_shallow_copy_of_the_state() -> None:
    """What one puts there, no other sees."""
    target = target_of(with_lifespan())
    await target.start()
    assert [(await answer_of(target, GET)).body, (await answer_of(target, GET)).body] == [b"['pool']", b"['pool']"]
    await target.stop()


async def test_a_failed_startup_stops_the_worker_with_one_line() -> None:
    """Frameworks send a traceback: its last line is the reason, the whole goes to the log."""
    log = CapturingLogger()
    message = "Traceback (most recent call last):\n  File ...\nOSError: no database\n"
    target = target_of(with_lifespan(at_startup={"type": "lifespan.startup.failed", "message": message}), log=log)
    with pytest.raises(TargetError, match=r"RABBITBAL_APP refused to start: OSError: no database$"):
        await target.start()
    assert message == log.calls[0].kwargs["message"]
    await target.stop()


@pytest.mark.parametrize("after_receive", [False, True])
async def test_an_application_without_lifespan_runs_all_the_same(after_receive: bool) -> None:
    """Raising on the scope is how it says so."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if after_receive:
                await receive()
            raise NotImplementedError
        await send(START)
        await send(BODY)

    target = target_of(app)
    await target.start()
    assert (await answer_of(target, GET)).status == 200
    await target.stop()


async def test_an_application_that_ignores_the_lifespan_runs_all_the_same() -> None:
    """It returns without a word."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        return None

    target = target_of(app)
    await target.start()
    await target.stop()


async def test_shutdown_is_bounded_in_time() -> None:
    """An application that hangs is cancelled."""
    log = CapturingLogger()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    target = target_of(app, shutdown_grace=0.01, log=log)
    await target.start()
    await asyncio.wait_for(target.stop(), 5)
    assert [call.args[0] for call in log.calls] == ["the application did not shut down in time"]


async def test_a_failed_shutdown_is_logged() -> None:
    """It is too late to do more."""
    log = CapturingLogger()
    target = target_of(with_lifespan(at_shutdown={"type": "lifespan.shutdown.failed", "message": "lost"}), log=log)
    await target.start()
    await target.stop()
    assert [(c.args[0], c.kwargs["message"]) for c in log.calls] == [("the application failed to shut down", "lost")]


async def test_a_lifespan_that_dies_while_serving_is_logged() -> None:
    """Requests go on; there is nothing left to shut down."""
    log = CapturingLogger()
    die, dead = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        await die.wait()
        dead.set()
        raise RuntimeError("gone")

    target = target_of(app, log=log)
    await target.start()
    die.set()
    await dead.wait()
    await asyncio.sleep(0)  # one turn of the loop: what is to be done at a task's end runs in the next
    await target.stop()
    assert [call.args[0] for call in log.calls] == ["the application's lifespan raised"]


async def test_a_cancelled_start_cancels_the_startup() -> None:
    """SIGTERM may come while an application loads."""
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    start = asyncio.create_task(target_of(app).start())
    await began.wait()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await asyncio.wait_for(cancelled.wait(), 5)
