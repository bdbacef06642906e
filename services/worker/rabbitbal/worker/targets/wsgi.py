"""Runs a WSGI application (PEP 3333) in threads of this process.

A thread cannot be cancelled: when a request is, its application runs on until it next hands over a piece of body or
asks for one. The call ends when the thread does, so that a slot is free only when a thread is.
"""

import asyncio
import contextvars
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Never

import structlog

from rabbitbal.wire.fields import Fields
from rabbitbal.wire.message import Request
from rabbitbal.worker.targets.cancelling import outlast
from rabbitbal.worker.targets.contract import Answer, AppRaised, BadResponse, Body
from rabbitbal.worker.targets.crossing import Crossing, Step
from rabbitbal.worker.targets.environ import wsgi_environ
from rabbitbal.worker.targets.wsgi_input import wsgi_input

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
WsgiApp = Callable[[dict[str, Any], Callable[..., Callable[[bytes], None]]], Iterable[bytes]]

_STATUS = re.compile(r"([0-9]{3})(?: [^\x00-\x1f\x7f]*)?")


class WsgiTarget:
    # A thread holds its slot to the end.
    detachable = False

    def __init__(self, app: WsgiApp, *, slots: int, log: Any = None) -> None:
        self._app = app
        self._slots = slots
        self._log = log or structlog.get_logger()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="wsgi")

    async def start(self) -> None:
        """Nothing: WSGI applications start when they are imported."""

    def drain(self) -> None:
        """Nothing: there are no WebSockets in WSGI."""

    async def stop(self) -> None:
        # Only requests that were cancelled can still run here.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, request: Request, body: Body, answer: Answer) -> None:
        # It is here already, so most bodies need no thread to wait for the loop.
        opening = await body.read() if request.body else b""
        crossing = Crossing()
        environ = wsgi_environ(
            request,
            wsgi_input(request, opening, lambda: crossing.run(body.read())),
            multithread=self._slots > 1,
        )
        call = _Call(self._app, environ, crossing, self._log)
        thread = self._threads.submit(contextvars.copy_context().run, call.run)
        running = asyncio.wrap_future(thread)
        running.add_done_callback(crossing.wake)
        try:
            await _carry_out(crossing, running, answer)
        except BaseException as error:
            crossing.cut(error)
            if not thread.cancel():  # it has begun
                await outlast(running)
                running.exception()  # taken note of: why the call fails is known
            raise
        # A thread of the application's own may still hold the input.
        crossing.cut()


async def _carry_out(crossing: Crossing, running: "asyncio.Future[None]", answer: Answer) -> None:
    """Send what the thread hands over, until it has ended."""
    while (step := await crossing.get(running)) is not None:
        if step.head is not None:
            await answer.start(*step.head)
        if step.piece:
            await answer.write(step.piece)
        if step.last:
            await answer.finish()
        crossing.written()
    running.result()


class _Call:
    """One call of the application, in its thread."""

    def __init__(self, app: WsgiApp, environ: dict[str, Any], crossing: Crossing, log: Any) -> None:
        self._app = app
        self._environ = environ
        self._crossing = crossing
        self._log = log
        self._head: tuple[int, Fields] | None = None
        self._sent = False
        self._held = b""
        self._misuse: BadResponse | None = None

    def run(self) -> None:
        try:
            self._consume(self._app(self._environ, self._start_response))
        except BaseException as error:
            # An application may have caught what start_response or write raised, and gone on.
            if isinstance(misuse := self._misuse or error, BadResponse):
                raise misuse from None
            if self._crossing.broken is not None:
                raise self._crossing.broken from None
            # SystemExit as well: it is the thread that the application wants to end, at most.
            raise AppRaised(f"{type(error).__name__}: {error}") from error

    def _consume(self, result: Any) -> None:
        try:
            if isinstance(result, bytes | str):
                raise BadResponse(f"the application returned {type(result).__name__}; return a list of bytes")
            try:
                pieces = iter(result)
            except TypeError:
                raise BadResponse(
                    f"the application returned {type(result).__name__}, which is not an iterable"
                ) from None
            # Of a single piece the server knows that nothing follows, so it can leave together with the end.
            hold = _length(result) == 1
            for piece in pieces:
                self._take(piece, hold=hold)
            if self._head is None:
                raise BadResponse("the application never called start_response")
            if self._misuse is not None:
                raise self._misuse
            self._put(self._held, last=True)
        finally:
            # "If the iterable returned by the application has a close() method, the server or gateway must call that
            # method upon completion of the current request, whether the request was completed normally, or terminated
            # early due to an application error during iteration or an early disconnect of the browser."
            self._close(result)

    def _close(self, result: Any) -> None:
        if (close := getattr(result, "close", None)) is None:
            return
        try:
            close()
        except Exception as error:
            # The body was complete, or something worse is being raised already.
            self._log.error("the application raised while its response was closed", exc_info=error)

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        try:
            if exc_info is not None:
                if self._sent or self._held:
                    # "If exc_info is provided, and the HTTP headers have already been sent, start_response must raise
                    # an error, and should re-raise using the exc_info tuple."
                    raise exc_info[1].with_traceback(exc_info[2])
            elif self._head is not None:
                self._fail("start_response called a second time without exc_info")
            match = _STATUS.fullmatch(status) if isinstance(status, str) else None
            if match is None:
                self._fail(f"status {status!r:.60} is not of the form '200 OK'")
            code = int(match[1])
            if code == 101:
                self._fail("status 101 is not that of a final response: WSGI knows no upgrade")
            try:
                self._head = code, _fields(headers)
            except BadResponse as error:
                self._fail(str(error))
        finally:
            # "exc_info = None", as in the PEP: the traceback would hold this frame and this frame the traceback.
            exc_info = None
        return self._take

    def _take(self, piece: bytes, *, hold: bool = False) -> None:
        if self._misuse is not None:
            raise self._misuse
        if not isinstance(piece, bytes):
            self._fail(f"body contains {type(piece).__name__}, not bytes")
        # "the application must invoke the start_response() callable before the iterable yields its first body
        # bytestring"
        if self._head is None:
            self._fail("body before start_response was called")
        # "... headers must not be sent until there is actual body data available": up to there exc_info may change
        # them.
        if not piece:
            return
        if hold and not self._held:
            self._held = piece
            return
        held, self._held = self._held, b""
        if held:
            self._put(held)
        self._put(piece)

    def _put(self, piece: bytes, *, last: bool = False) -> None:
        head, self._sent = None if self._sent else self._head, True
        self._crossing.put(Step(head, piece, last))

    def _fail(self, text: str) -> Never:
        self._misuse = BadResponse(text)
        raise self._misuse from None


def _length(result: Any) -> int | None:
    try:
        return len(result)
    except Exception:  # a property of the application's, whatever it does
        return None


def _fields(headers: object) -> Fields:
    # "The response_headers argument ... must be a Python list; i.e. type(response_headers) is ListType".
    if not isinstance(headers, list):
        raise BadResponse(f"headers are {type(headers).__name__}, not a list")
    fields: Fields = []
    for pair in headers:
        try:
            name, value = pair
            fields.append((name.encode("latin-1"), value.encode("latin-1")))
        except UnicodeEncodeError:
            raise BadResponse(f"header {name!r:.40} cannot be encoded as latin-1") from None
        except (TypeError, ValueError, AttributeError):
            raise BadResponse("headers are not a list of (str, str) pairs") from None
    return fields
