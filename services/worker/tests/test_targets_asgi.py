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

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"hello"}
GET = Request("GET", b"/")
LIMIT = 1000


def target_of(app: Any, **options: Any) -> AsgiTarget:
    return AsgiTarget(app, slots=2, response_limit=LIMIT, **options)


def sends(*messages: Any) -> Any:
    """An application that sends these messages and returns."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


async def answer(*messages: Any, method: str = "GET") -> Response:
    return await target_of(sends(*messages))(Request(method, b"/"))


async def scope_of(request: Request) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.update(scope)
        await send(START)
        await send(BODY)

    await target_of(app)(request)
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
        "asgi": {"version": "3.0", "spec_version": "2.3"},
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
    assert (await target(Request("POST", b"/", [], b"data"))).body == b"hello"
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

    assert (await target_of(app)(GET)).body == b"hello"


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
    """RFC 9110 §9.3.2. A body that is larger than the limit is not collected and costs nothing."""
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
        ([START, {**BODY, "body": bytes(LIMIT + 1)}], "body is larger than the response limit of 1000 bytes"),
        ([{**START, "headers": [(b"content-length", b"1001")]}], "1001 is larger than the response limit of 1000"),
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
        await target_of(app)(GET)


async def test_a_body_of_exactly_the_limit_passes() -> None:
    """The limit is the largest size that is allowed."""
    assert len((await answer(START, {**BODY, "body": bytes(LIMIT)})).body) == LIMIT


@pytest.mark.parametrize("before", [[], [START], [START, {**BODY, "more_body": True}]])
async def test_an_application_that_raises_before_the_end_has_no_response(before: list[Any]) -> None:
    """Not even the half that it sent: nothing has left yet."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await sends(*before)(scope, receive, send)
        raise KeyError("price")

    with pytest.raises(AppRaised, match="KeyError: 'price'") as caught:
        await target_of(app)(GET)
    assert isinstance(caught.value.__cause__, KeyError)


async def test_an_application_that_cancels_itself_has_raised() -> None:
    """That nobody asked for it must not look like a cancelled request."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with pytest.raises(AppRaised, match="cancelled itself"):
        await target_of(app)(GET)


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
    assert (await target(GET)).body == b"hello"
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
    await target(GET)
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
    await target(GET)
    await target(GET)
    third = asyncio.create_task(target(GET))
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
    await target(GET)
    await target.stop()
    await asyncio.wait_for(cancelled.wait(), 5)
    assert log.calls[0].args[0] == "cancelled what the application still did after its response"


async def test_cancelling_reaches_the_application_and_is_not_swallowed() -> None:
    """The application cleans up before the slot is free; its detached readers see http.disconnect."""
    running, cleaned = asyncio.Event(), []
    readers: list[asyncio.Future[dict[str, Any]]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        readers.append(asyncio.ensure_future(receive()))
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.wait((asyncio.create_task(asyncio.Event().wait()),), timeout=0.01)
            cleaned.append(True)

    request = asyncio.create_task(target_of(app)(GET))
    await running.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert cleaned == [True]
    assert await asyncio.wait_for(readers[0], 5) == {"type": "http.disconnect"}


async def test_context_variables_of_the_caller_are_seen() -> None:
    """Log lines of the application carry what the consumer bound."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("set by the consumer")

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send({**BODY, "body": variable.get().encode()})

    assert (await target_of(app)(GET)).body == b"set by the consumer"


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
    assert [(await target(GET)).body, (await target(GET)).body] == [b"['pool']", b"['pool']"]
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
    assert (await target(GET)).status == 200
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
