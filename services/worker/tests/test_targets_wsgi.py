"""The WSGI target: the environ, start_response, write and close of PEP 3333, and every way of getting them wrong."""

import asyncio
import contextlib
import contextvars
import importlib
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from structlog.testing import CapturingLogger

from rabbitbal.wire.fields import Field
from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets import AppRaised, BadResponse
from rabbitbal.worker.targets.wsgi import WsgiTarget
from tests.harness import Pieces, Recorder, answer_of, until

GET = Request("GET", b"/")
TEXT = [("Content-Type", "text/plain")]
MIB = 1024 * 1024


def target_of(app: Any, slots: int = 2, **options: Any) -> WsgiTarget:
    return WsgiTarget(app, slots=slots, **options)


async def run(app: Any, request: Request = GET, *pieces: bytes, **options: Any) -> Response:
    target = target_of(app, **options)
    await target.start()
    try:
        return await answer_of(target, request, *pieces)
    finally:
        await target.stop()


class Running:
    """A call of the target that the test feeds and watches."""

    def __init__(self, app: Any, request: Request = GET, *, body: Any = None, credit: int = 1 << 62) -> None:
        self.target = target_of(app)
        self.body = body or Pieces(request.body)
        self.answer = Recorder(request, credit)
        self.task = asyncio.create_task(self.target(request, self.body, self.answer))

    async def __aenter__(self) -> "Running":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait((self.task,), timeout=10)
        assert self.task.done()
        self.answer.abandon()
        await self.target.stop()

    async def cancel(self) -> None:
        """As the run does: nobody takes the answer, and the call ends when its thread has."""
        self.answer.abandon()
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(10):
                await self.task


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
        (answers([], "600 No"), "status 600 is not that of a final response"),
        (answers([], headers=(("A", "b"),)), "headers are tuple, not a list"),
        (answers([], headers=[("A", b"b")]), "headers are not a list of (str, str) pairs"),
        (answers([], headers=[("A", 1)]), "headers are not a list of (str, str) pairs"),
        (answers([], headers=["ABC"]), "headers are not a list of (str, str) pairs"),
        (answers([], headers=[("A", "\u20ac")]), "header 'A' cannot be encoded as latin-1"),
        (answers([], headers=[("A", "b\r\nc: d")]), "invalid header: value of field b'A' contains a control"),
        (answers([b"abc"], headers=[("Content-Length", "4")]), "Content-Length is 4 but the body has 3 bytes"),
        (answers([b"abc"], headers=[("Content-Length", "2")]), "Content-Length is 2 but the body has 3 bytes"),
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


@pytest.mark.parametrize("chunks", [[b"a"], ["not bytes"], [b"a", "not bytes"], [b"longer", b"than declared"]])
async def test_the_iterable_is_closed_however_it_ends(chunks: list[Any]) -> None:
    """Frameworks give their database connections back there."""
    closed = []
    headers = [("Content-Length", "6")] if len(chunks) == 2 else []
    with contextlib.suppress(BadResponse):
        await run(answers(Closing(iter(chunks), lambda: closed.append(True)), headers=headers))
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
    first, second = await asyncio.gather(answer_of(target, GET), answer_of(target, GET))
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
    """The thread is free when the application hands over again, which raises; the iterable is closed."""
    entered, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    pieces: list[int] = []

    def body() -> Iterator[bytes]:
        for piece in range(100):
            pieces.append(piece)
            entered.set()
            go_on.wait(10)
            yield b"x"

    async with Running(answers(Closing(body(), closed.set))) as running:
        assert await asyncio.to_thread(entered.wait, 10)
        running.answer.abandon()
        running.task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await running.task
        assert closed.is_set()
        assert pieces == [0]


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
    running = asyncio.create_task(answer_of(target, Request("GET", b"/a")))
    assert await asyncio.to_thread(entered.wait, 10)
    waiting = asyncio.create_task(answer_of(target, Request("GET", b"/b")))
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
    running = asyncio.create_task(answer_of(target, Request("GET", b"/")))
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


# --- the response in pieces


async def test_each_block_leaves_before_the_next_is_made() -> None:
    """PEP 3333: "WSGI servers, gateways, and middleware must not delay the transmission of any block"."""
    seen = threading.Semaphore(0)

    @validator
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", TEXT)
        return blocks()

    def blocks() -> Iterator[bytes]:
        for block in (b"one ", b"two ", b"three"):
            yield block
            assert seen.acquire(timeout=10)

    async with Running(app) as running:
        for body in (b"one ", b"one two ", b"one two three"):
            await until(lambda body=body: running.answer.body == body)  # type: ignore[misc]
            seen.release()
        await running.task
        assert running.answer.complete
        assert running.answer.head is not None
        assert running.answer.head.fields == [(b"Content-Type", b"text/plain")]


async def test_what_write_is_given_leaves_before_the_application_returns() -> None:
    """The same for the callable."""
    seen = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])(b"early")
        assert seen.wait(10)
        return [b", late"]

    async with Running(app) as running:
        await until(lambda: running.answer.body == b"early")
        seen.set()
        await running.task
        assert running.answer.body == b"early, late"


def one_block() -> Iterator[bytes]:
    yield b"whole"


@pytest.mark.parametrize("body", [lambda: [b"whole"], one_block, lambda: iter([b"", b"whole", b""])])
async def test_a_response_that_is_there_at_once_is_one_message(body: Callable[[], Any]) -> None:
    """With its length, also where nobody knew that the first block would be the last."""
    async with Running(answers(body())) as running:
        await running.task
        expected = Response(200, [(b"Content-Type", b"text/plain"), (b"Content-Length", b"5")], b"whole")
        assert expected == running.answer.head


async def test_a_single_block_needs_no_other_to_leave() -> None:
    """Whatever close does afterwards: the client has its response already."""
    go_on = threading.Event()
    block = [b"whole"]

    class Slow(list[bytes]):
        def close(self) -> None:
            go_on.wait(10)

    async with Running(answers(Slow(block))) as running:
        await until(lambda: running.answer.complete)
        assert not running.task.done()
        go_on.set()
        await running.task


async def test_a_length_that_is_wrong_loses_nothing() -> None:
    """What says that it has one block may have three."""

    class Liar(list[bytes]):
        def __len__(self) -> int:
            return 1

    assert (await run(answers(Liar([b"a", b"b", b"c"])))).body == b"abc"


async def test_an_error_behind_the_first_block_of_a_length_is_raised_again() -> None:
    """A block that is held counts as sent: the headers are those that were valid when it was yielded."""

    class Block:
        def __init__(self, blocks: Iterator[bytes]) -> None:
            self._blocks = blocks

        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[bytes]:
            return self._blocks

    def app(environ: Any, start_response: Any) -> Any:
        def blocks() -> Iterator[bytes]:
            start_response("200 OK", [])
            yield b"some"
            try:
                raise KeyError("price")
            except KeyError:
                start_response("500 Oops", [], sys.exc_info())

        return Block(blocks())

    with pytest.raises(AppRaised, match="KeyError: 'price'"):
        await run(app)


async def test_a_client_that_reads_slowly_slows_the_application() -> None:
    """64 MiB through a window of 128 KiB; at no time has the application made much more than was taken."""
    block = bytes(64 * 1024)
    made = 0
    ahead = []

    def blocks() -> Iterator[bytes]:
        nonlocal made
        for _ in range(1024):
            made += len(block)
            yield block

    async with Running(answers(blocks()), credit=0) as running:
        while not running.answer.complete:
            taken = len(running.answer.pieces) * (64 * 1024 + 256)
            ahead.append(made - sum(map(len, running.answer.pieces)))
            running.answer.grant(taken + 128 * 1024)
            await asyncio.sleep(0)
        await running.task
        assert len(running.answer.body) == 64 * MIB
    assert max(ahead) <= 1 * MIB


async def test_an_application_that_raises_half_way_is_told_apart_from_one_that_ends() -> None:
    """The call fails although the response has begun: the run breaks the stream."""
    async with Running(answers(raising_iterable())) as running:
        with pytest.raises(AppRaised, match="KeyError: 'price'"):
            await running.task
        assert running.answer.started
        assert not running.answer.finished


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt()])
async def test_an_application_cannot_end_more_than_its_request(error: BaseException) -> None:
    """Not the worker, and it does not look as if its client had left."""

    def app(environ: Any, start_response: Any) -> Any:
        raise error

    with pytest.raises(AppRaised, match=type(error).__name__):
        await run(app)


async def test_what_the_answer_refuses_is_told_to_the_application() -> None:
    """A body longer than declared: at the next block at the latest."""
    raised = []

    def blocks() -> Iterator[bytes]:
        try:
            while True:
                yield b"block"
        except GeneratorExit:
            raised.append("closed")

    with pytest.raises(BadResponse, match="Content-Length is 8 but the body has 10 bytes"):
        await run(answers(blocks(), headers=[("Content-Length", "8")]))
    assert raised == ["closed"]


async def test_write_raises_for_a_client_that_is_gone() -> None:
    """An OSError, as from a socket; then the application can clean up."""
    raised: list[Exception] = []
    entered = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [])
        try:
            while True:
                write(bytes(64 * 1024))
                entered.set()
        except OSError as error:
            raised.append(error)
            with contextlib.suppress(OSError):
                write(b"again")
            raise

    # No credit: the thread waits in write when the client leaves.
    async with Running(app, credit=0) as running:
        assert await asyncio.to_thread(entered.wait, 10)
        await running.cancel()
    assert [type(error) for error in raised] == [ConnectionResetError]


# --- the request in pieces


def posted(length: int | None = None, body: bytes = b"") -> Request:
    fields = [] if length is None else [(b"Content-Length", b"%d" % length)]
    return Request("POST", b"/", fields, body)


async def test_the_body_is_read_as_it_arrives() -> None:
    """A piece goes up and comes back before the next one goes up; validated."""

    @validator
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", TEXT)
        return echo(environ["wsgi.input"])

    def echo(source: Any) -> Iterator[bytes]:
        while piece := source.read(4):
            yield piece

    async with Running(app, posted()) as running:
        for count in range(1, 4):
            running.body.put(b"ping")
            await until(lambda count=count: running.answer.body == b"ping" * count)  # type: ignore[misc]
        running.body.end()
        await running.task
        assert running.answer.complete


def reads(how: Callable[[Any], Any]) -> tuple[Any, list[Any]]:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(how(environ["wsgi.input"]))
        start_response("200 OK", TEXT)
        return []

    return app, seen


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("opening", [b"", b"one\nt"])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda source: source.read(), b"one\ntwo\nthree"),
        (lambda source: source.read(-1), b"one\ntwo\nthree"),
        (lambda source: source.read(10), b"one\ntwo\nth"),
        (lambda source: [source.read(8), source.read(99), source.read(99)], [b"one\ntwo\n", b"three", b""]),
        (lambda source: [source.readline(), source.readline(2), source.readline()], [b"one\n", b"tw", b"o\n"]),
        (lambda source: source.readlines(), [b"one\n", b"two\n", b"three"]),
        (lambda source: list(source), [b"one\n", b"two\n", b"three"]),
        (lambda source: source.read(0), b""),
    ],
)
async def test_the_input_is_a_file(how: Callable[[Any], Any], expected: Any, opening: bytes, declared: bool) -> None:
    """However its body arrives."""
    app, seen = reads(how)
    whole = b"one\ntwo\nthree"
    rest = whole[len(opening) :]
    await run(app, posted(len(whole) if declared else None, opening), rest[:4], rest[4:])
    assert seen == [expected]


async def test_the_input_ends_with_the_declared_length() -> None:
    """It waits for nothing behind it: the body here never ends."""
    app, seen = reads(lambda source: source.read() + source.read(1))
    async with Running(app, posted(8, b"four")) as running:
        running.body.put(b"more and more")
        await running.task
    assert seen == [b"fourmore"]


async def test_a_body_that_is_not_read_is_not_asked_for() -> None:
    """Only what came with the head is taken."""

    class Unread(Pieces):
        async def read(self) -> bytes:
            raise AssertionError("nobody wants it")

    async with Running(answers([b"ok"]), posted(1 << 40), body=Unread()) as running:
        await running.task
        assert running.answer.body == b"ok"


async def test_a_body_that_breaks_off_is_an_error_to_its_reader() -> None:
    """And never a short body that looks whole."""
    raised: list[str] = []

    def how(source: Any) -> None:
        try:
            source.read()
        except OSError as error:
            raised.append(type(error).__name__)
            raise

    app, _ = reads(how)
    async with Running(app, posted(100, b"some")) as running:
        running.body.fail()
        with pytest.raises(ConnectionResetError):
            await running.task
    with pytest.raises(AppRaised, match="ended 92 bytes before its end"):
        await run(app, posted(100, b"some"), b"more")
    assert raised == ["ConnectionResetError"] * 2


async def test_a_cancelled_request_ends_while_it_waits_for_its_body() -> None:
    """read raises in the thread, and the call is over when the thread is."""
    entered, raised = threading.Event(), []

    def how(source: Any) -> None:
        entered.set()
        try:
            source.read()
        except OSError as error:
            raised.append(type(error))
            raise

    app, _ = reads(how)
    async with Running(app, posted()) as running:
        assert await asyncio.to_thread(entered.wait, 10)
        await running.cancel()
    assert raised == [ConnectionResetError]


async def test_the_input_is_dead_when_the_request_is_over() -> None:
    """A thread that the application has left behind hears of it."""
    app, seen = reads(lambda source: source)
    async with Running(app, posted()) as running:
        await running.task
        running.body.put(b"late")
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(seen[0].read)


async def test_a_long_body_passes_through_little_memory() -> None:
    """64 MiB up and down again, piece by piece."""

    class Long(Pieces):
        left = 1024

        async def read(self) -> bytes:
            self.left -= 1
            return bytes(64 * 1024) if self.left >= 0 else b""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        while piece := environ["wsgi.input"].read(64 * 1024):
            yield piece

    class Counting(Recorder):
        size = 0

        @property
        def counted(self) -> int:
            self.size += sum(map(len, self.pieces))
            self.pieces.clear()
            return self.size

    target, answer = target_of(app), Counting(posted())
    tracemalloc.start()
    try:
        task = asyncio.create_task(target(posted(), Long(), answer))
        while not task.done():
            assert answer.counted >= 0
            await asyncio.sleep(0)
        await task
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        await target.stop()
    assert answer.counted == 64 * MIB
    assert peak < 4 * MIB


async def test_a_request_to_upgrade_is_an_ordinary_one() -> None:
    """WSGI has no upgrade; what the client would send behind it is no body."""
    app, seen = reads(lambda source: source.read())
    request = Request("GET", b"/", [(b"Sec-WebSocket-Version", b"13")], upgrade="websocket")
    async with Running(app, request) as running:
        running.body.put(b"frames")
        await running.task
    assert seen == [b""]
    with pytest.raises(BadResponse, match="status 101 is not that of a final response: WSGI knows no upgrade"):
        await run(answers([], "101 Switching Protocols"), request)


async def test_flask_streams() -> None:
    """An upload that is read in pieces, and a response that is made in pieces."""
    flask = importlib.import_module("flask")
    app = flask.Flask("shop")

    @app.post("/lines")  # type: ignore[untyped-decorator, unused-ignore]
    def lines() -> Any:
        stream = flask.request.stream
        return app.response_class((line.upper() for line in stream), mimetype="text/plain")

    async with Running(app, Request("POST", b"/lines", [(b"Host", b"h"), (b"Content-Length", b"12")])) as running:
        running.body.put(b"first\n")
        await until(lambda: running.answer.body == b"FIRST\n")
        running.body.put(b"second")
        await running.task
        assert running.answer.body == b"FIRST\nSECOND"
