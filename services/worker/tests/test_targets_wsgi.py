"""The WSGI target: the environ, start_response, write and close of PEP 3333, and every way of getting them wrong."""

import asyncio
import contextlib
import contextvars
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from structlog.testing import CapturingLogger

from rabbitbal.wire.fields import Field
from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets import AppRaised, BadResponse
from rabbitbal.worker.targets.wsgi import WsgiTarget

GET = Request("GET", b"/")
TEXT = [("Content-Type", "text/plain")]
LIMIT = 1000


def target_of(app: Any, slots: int = 2, **options: Any) -> WsgiTarget:
    return WsgiTarget(app, slots=slots, response_limit=LIMIT, **options)


async def run(app: Any, request: Request = GET, **options: Any) -> Response:
    target = target_of(app, **options)
    await target.start()
    try:
        return await target(request)
    finally:
        await target.stop()


def answers(body: Any, status: Any = "200 OK", headers: Any = TEXT) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, headers)
        return body

    return app


async def environ_of(request: Request, slots: int = 2) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def app(environ: Any, start_response: Any) -> Any:
        seen.update(environ, body=environ["wsgi.input"].read())
        start_response("200 OK", [])
        return []

    await run(app, request, slots=slots)
    return seen


async def test_the_environ_describes_the_request() -> None:
    """Every variable that PEP 3333 and CGI name, and no other HTTP_ one than the request has."""
    fields = [
        (b"Host", b"example.org:8080"),
        (b"X-Forwarded-For", b"192.0.2.7, 10.0.0.1"),
        (b"X-Forwarded-Proto", b"https"),
        (b"Content-Type", b"text/csv"),
        (b"Content-Length", b"4"),
        (b"X-Name", b"caf\xe9"),
    ]
    environ = await environ_of(Request("POST", b"/caf%C3%A9/a%20b?x=%20", fields, b"data"))
    input_, errors = environ.pop("wsgi.input"), environ.pop("wsgi.errors")
    assert (b"", sys.stderr) == (input_.read(), errors)
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/caf\u00c3\u00a9/a b",
        "QUERY_STRING": "x=%20",
        "CONTENT_TYPE": "text/csv",
        "CONTENT_LENGTH": "4",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "rabbitbal",
        "REMOTE_ADDR": "192.0.2.7",
        "RAW_URI": "/caf%C3%A9/a%20b?x=%20",
        "REQUEST_URI": "/caf%C3%A9/a%20b?x=%20",
        "HTTP_HOST": "example.org:8080",
        "HTTP_X_FORWARDED_FOR": "192.0.2.7, 10.0.0.1",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_NAME": "caf\u00e9",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "body": b"data",
    }
    assert expected == environ


async def test_what_the_request_does_not_have_is_absent_or_has_its_default() -> None:
    """SERVER_NAME and SERVER_PORT can never be empty; CONTENT_TYPE and CONTENT_LENGTH may be absent."""
    environ = await environ_of(GET, slots=1)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == ("localhost", "80", "")
    assert not {"CONTENT_TYPE", "CONTENT_LENGTH"} & set(environ)
    assert not [name for name in environ if name.startswith("HTTP_")]
    assert environ["wsgi.multithread"] is False


async def test_repeated_fields_are_joined() -> None:
    """By commas; cookies by semicolons."""
    fields = [(b"X-A", b"1"), (b"Cookie", b"a=1"), (b"x-a", b"2"), (b"cookie", b"b=2")]
    environ = await environ_of(Request("GET", b"/", fields))
    assert (environ["HTTP_X_A"], environ["HTTP_COOKIE"]) == ("1,2", "a=1; b=2")


async def test_fields_that_could_pass_for_others_are_dropped() -> None:
    """X_Forwarded_For would become HTTP_X_FORWARDED_FOR, and Proxy HTTP_PROXY (httpoxy)."""
    fields = [(b"X_Forwarded_For", b"6.6.6.6"), (b"Content_Length", b"9"), (b"Proxy", b"http://evil"), (b"X-B", b"1")]
    environ = await environ_of(Request("GET", b"/", fields))
    assert [name for name in environ if name.startswith("HTTP_")] == ["HTTP_X_B"]
    assert "CONTENT_LENGTH" not in environ


async def test_the_validator_of_the_standard_library_is_content() -> None:
    """Requests with and without a body, and one to an IPv6 address."""

    @validator
    def app(environ: Any, start_response: Any) -> Any:
        size = int(environ.get("CONTENT_LENGTH", "0"))
        body = environ["wsgi.input"].read(size)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    for host in (b"example.org", b"[::1]:80", b""):
        request = Request("POST", b"/a%20b?c", [(b"Host", host), (b"Content-Length", b"4")], b"data")
        assert (await run(app, request)).body == b"data"
    assert (await run(app)).body == b""


async def test_the_response_is_what_the_application_gave() -> None:
    """Order and repeats of fields survive; the length is added; hop-by-hop fields stay behind."""
    headers = [("Set-Cookie", "a=1"), ("X-Name", "caf\u00e9"), ("Connection", "close"), ("Set-Cookie", "b=2")]
    response = await run(answers([b"a", b"", b"b"], "404 Not Here", headers))
    fields = [(b"Set-Cookie", b"a=1"), (b"X-Name", b"caf\xe9"), (b"Set-Cookie", b"b=2"), (b"Content-Length", b"2")]
    assert Response(404, fields, b"ab") == response


async def test_start_response_may_be_called_at_the_first_iteration() -> None:
    """Generators are lazy."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"lazy"

    assert (await run(app)).body == b"lazy"


async def test_write_precedes_what_is_returned() -> None:
    """The callable that start_response returns, for applications of another age."""

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [])
        write(b"a")
        write(b"b")
        return [b"c"]

    assert (await run(app)).body == b"abc"


async def test_head_keeps_the_length_and_drops_the_body() -> None:
    """RFC 9110 §9.3.2."""
    app = answers([bytes(5000)], headers=[("Content-Length", "5000")])
    assert Response(200, [(b"Content-Length", b"5000")], b"") == await run(app, Request("HEAD", b"/"))


@pytest.mark.parametrize(
    ("status", "kept"), [("204 No Content", []), ("304 Not Modified", [(b"Content-Length", b"1")])]
)
async def test_no_content_and_not_modified_have_no_body(status: str, kept: list[Field]) -> None:
    """And 204 has no Content-Length (RFC 9110 §8.6)."""
    assert Response(int(status[:3]), kept, b"") == await run(answers([b"x"], status, [("Content-Length", "1")]))


async def test_an_error_page_replaces_a_response_without_body_so_far() -> None:
    """start_response with exc_info, before the first bytes."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("X-Old", "1")])
        yield b""
        try:
            raise KeyError("price")
        except KeyError:
            start_response("500 Oops", [("X-New", "1")], sys.exc_info())
        yield b"sorry"

    assert Response(500, [(b"X-New", b"1"), (b"Content-Length", b"5")], b"sorry") == await run(app)


async def test_an_error_behind_the_first_bytes_is_raised_again() -> None:
    """start_response with exc_info re-raises it when it comes too late."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"some"
        try:
            raise KeyError("price")
        except KeyError:
            start_response("500 Oops", [], sys.exc_info())
        yield b"never"

    with pytest.raises(AppRaised, match="KeyError: 'price'"):
        await run(app)


def raising_iterable() -> Iterator[bytes]:
    yield b"some"
    raise KeyError("price")


def raising_app(environ: Any, start_response: Any) -> Any:
    raise KeyError("price")


@pytest.mark.parametrize("app", [raising_app, answers(raising_iterable())])
async def test_an_application_that_raises_has_no_response(app: Any) -> None:
    """Neither before the first byte nor behind it."""
    with pytest.raises(AppRaised, match="KeyError: 'price'") as caught:
        await run(app)
    assert isinstance(caught.value.__cause__, KeyError)


def twice(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []


def twice_and_hidden(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    try:
        start_response("200 OK", [])
    except BadResponse:
        return [b"hidden"]


def body_first(environ: Any, start_response: Any) -> Iterator[bytes]:
    yield b"body"
    start_response("200 OK", [])


def writes_text(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])("text")
    return []


@pytest.mark.parametrize(
    ("app", "text"),
    [
        (lambda environ, start_response: [], "never called start_response"),
        (lambda environ, start_response: None, "returned NoneType, which is not an iterable"),
        (twice, "start_response called a second time without exc_info"),
        (twice_and_hidden, "start_response called a second time without exc_info"),
        (body_first, "body before start_response was called"),
        (writes_text, "body contains str, not bytes"),
        (answers("text"), "returned str; return a list of bytes"),
        (answers(b"bytes"), "returned bytes; return a list of bytes"),
        (answers(["text"]), "body contains str, not bytes"),
        (answers([None]), "body contains NoneType, not bytes"),
        (answers([], 200), "status 200 is not of the form '200 OK'"),
        (answers([], "OK"), "status 'OK' is not of the form '200 OK'"),
        (answers([], "200 OK\r\nx: y"), "is not of the form '200 OK'"),
        (answers([], "101 Switching Protocols"), "status 101 is not that of a final response"),
        (answers([], headers=(("A", "b"),)), "headers are tuple, not a list"),
        (answers([], headers=[("A", b"b")]), "headers are not a list of (str, str) pairs"),
        (answers([], headers=[("A", 1)]), "headers are not a list of (str, str) pairs"),
        (answers([], headers=["ABC"]), "headers are not a list of (str, str) pairs"),
        (answers([], headers=[("A", "\u20ac")]), "header 'A' cannot be encoded as latin-1"),
        (answers([], headers=[("A", "b\r\nc: d")]), "invalid header: value of field b'A' contains a control"),
        (answers([b"abc"], headers=[("Content-Length", "4")]), "Content-Length is 4 but the body has 3 bytes"),
        (answers([b"abc"], headers=[("Content-Length", "2")]), "Content-Length is 2 but the body has 3 bytes"),
        (answers([bytes(LIMIT), b"x"]), "body is larger than the response limit of 1000 bytes"),
        (answers([], headers=[("Content-Length", "1001")]), "1001 is larger than the response limit of 1000"),
    ],
)
async def test_every_misuse_is_named(app: Any, text: str) -> None:
    """The text is for who wrote the application."""
    with pytest.raises(BadResponse) as caught:
        await run(app)
    assert text in str(caught.value)


class Closing:
    """An iterable with a close method."""

    def __init__(self, chunks: Iterator[Any], close: Callable[[], None]) -> None:
        self._chunks = chunks
        self.close = close

    def __iter__(self) -> Iterator[Any]:
        return self._chunks


@pytest.mark.parametrize("chunks", [[b"a"], ["not bytes"], [bytes(LIMIT + 1)]])
async def test_the_iterable_is_closed_however_it_ends(chunks: list[Any]) -> None:
    """Frameworks give their database connections back there."""
    closed = []
    with contextlib.suppress(BadResponse):
        await run(answers(Closing(iter(chunks), lambda: closed.append(True))))
    assert closed == [True]


async def test_an_error_in_close_is_logged_and_the_response_stands() -> None:
    """The body was complete."""
    log = CapturingLogger()

    def close() -> None:
        raise OSError("gone")

    assert (await run(answers(Closing(iter([b"a"]), close)), log=log)).body == b"a"
    assert str(log.calls[0].kwargs["exc_info"]) == "gone"


async def test_requests_run_side_by_side_in_as_many_threads_as_slots() -> None:
    """Two of them meet at a barrier."""
    barrier = threading.Barrier(2, timeout=10)

    def app(environ: Any, start_response: Any) -> Any:
        barrier.wait()
        start_response("200 OK", [])
        return [threading.current_thread().name.encode()]

    target = target_of(app)
    await target.start()
    first, second = await asyncio.gather(target(GET), target(GET))
    await target.stop()
    assert first.body != second.body


async def test_context_variables_of_the_caller_are_seen() -> None:
    """Log lines of the application carry what the consumer bound."""
    variable: contextvars.ContextVar[bytes] = contextvars.ContextVar("variable")
    variable.set(b"set by the consumer")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [variable.get()]

    assert (await run(app)).body == b"set by the consumer"


async def test_a_cancelled_request_ends_at_its_next_piece_of_body() -> None:
    """The caller hears at once; the thread is free when the application hands over again; the iterable is closed."""
    entered, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    pieces = []

    def body() -> Iterator[bytes]:
        entered.set()
        go_on.wait(10)
        for piece in range(100):
            pieces.append(piece)
            yield b"x"

    target = target_of(answers(Closing(body(), closed.set)))
    await target.start()
    request = asyncio.create_task(target(GET))
    assert await asyncio.to_thread(entered.wait, 10)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    go_on.set()
    assert await asyncio.to_thread(closed.wait, 10)
    assert pieces == [0]
    await target.stop()


async def test_a_request_cancelled_before_its_thread_is_free_never_runs() -> None:
    """It waits behind the one that occupies the only thread."""
    entered, go_on = threading.Event(), threading.Event()
    ran = []

    def app(environ: Any, start_response: Any) -> Any:
        ran.append(environ["PATH_INFO"])
        entered.set()
        go_on.wait(10)
        start_response("200 OK", [])
        return []

    target = target_of(app, slots=1)
    await target.start()
    running = asyncio.create_task(target(Request("GET", b"/a")))
    assert await asyncio.to_thread(entered.wait, 10)
    waiting = asyncio.create_task(target(Request("GET", b"/b")))
    await asyncio.sleep(0)  # one turn of the loop: the request is with the executor
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert (await running).status == 200
    await target.stop()
    assert ran == ["/a"]


async def test_flask_answers() -> None:
    """One real framework, where it is installed."""
    flask = importlib.import_module("flask")
    app = flask.Flask("shop")

    @app.post("/echo/<name>")  # type: ignore[untyped-decorator, unused-ignore]
    def echo(name: str) -> Any:
        return {"name": name, "url": flask.request.url, "body": flask.request.get_data().decode()}

    request = Request("POST", b"/echo/caf%C3%A9", [(b"Host", b"h"), (b"Content-Length", b"1")], b"x")
    response = await run(app, request)
    assert response.body == b'{"body":"x","name":"caf\\u00e9","url":"http://h/echo/caf\\u00e9"}\n'


async def test_a_cancelled_call_ends_when_its_thread_does() -> None:
    """A slot must not be free while its thread is not: the next request would wait for it in this worker."""
    entered, go_on = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        entered.set()
        go_on.wait(10)
        start_response("200 OK", [])
        return []

    target = target_of(app, slots=1)
    await target.start()
    running = asyncio.create_task(target(Request("GET", b"/")))
    assert await asyncio.to_thread(entered.wait, 10)
    running.cancel()
    await asyncio.wait({running}, timeout=0.05)
    assert not running.done()
    # The deadline and the edge's cancel may both come.
    running.cancel()
    await asyncio.wait({running}, timeout=0.05)
    assert not running.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    await target.stop()
