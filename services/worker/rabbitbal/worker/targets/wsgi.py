"""Runs a WSGI application (PEP 3333) in threads of this process.

A thread cannot be cancelled: when a request is, its application runs on until it next hands over a piece of body. The
call ends when the thread does, so that a slot is free only when a thread is.
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
from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets.cancelling import outlast
from rabbitbal.worker.targets.contract import AppRaised, BadResponse
from rabbitbal.worker.targets.environ import wsgi_environ
from rabbitbal.worker.targets.framing import BufferedResponse

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
WsgiApp = Callable[[dict[str, Any], Callable[..., Callable[[bytes], None]]], Iterable[bytes]]

_STATUS = re.compile(r"([0-9]{3})(?: [^\x00-\x1f\x7f]*)?")


class WsgiTarget:
    def __init__(self, app: WsgiApp, *, slots: int, response_limit: int, log: Any = None) -> None:
        self._app = app
        self._slots = slots
        self._limit = response_limit
        self._log = log or structlog.get_logger()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="wsgi")

    async def start(self) -> None:
        """Nothing: WSGI applications start when they are imported."""

    async def stop(self) -> None:
        # Only requests that were cancelled can still run here.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, request: Request) -> Response:
        call = _Call(self._app, request, self._limit, self._log, multithread=self._slots > 1)
        context = contextvars.copy_context()
        thread = self._threads.submit(context.run, call.run)
        running = asyncio.wrap_future(thread)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            call.abandoned = True
            if not thread.cancel():  # it has begun
                await outlast(running)
                running.exception()  # taken note of: nobody waits for it
            raise


class _Abandoned(Exception):
    """Nobody waits for the response."""


class _Call:
    """One call of the application, in its thread."""

    def __init__(self, app: WsgiApp, request: Request, limit: int, log: Any, *, multithread: bool) -> None:
        self.abandoned = False
        self._app = app
        self._environ = wsgi_environ(request, multithread=multithread)
        self._buffer = BufferedResponse(request.method, limit)
        self._sent = False
        self._misuse: BadResponse | None = None
        self._log = log

    def run(self) -> Response:
        try:
            self._consume(self._app(self._environ, self._start_response))
            if not self._buffer.started:
                raise BadResponse("the application never called start_response")
            return self._buffer.finish()
        except Exception as error:
            # An application may have caught what start_response or write raised, and gone on.
            if isinstance(misuse := self._misuse or error, BadResponse):
                raise misuse from None
            raise AppRaised(f"{type(error).__name__}: {error}") from error

    def _consume(self, result: Any) -> None:
        try:
            if isinstance(result, bytes | str):
                raise BadResponse(f"the application returned {type(result).__name__}; return a list of bytes")
            try:
                chunks = iter(result)
            except TypeError:
                raise BadResponse(
                    f"the application returned {type(result).__name__}, which is not an iterable"
                ) from None
            for chunk in chunks:
                self._write(chunk)
        finally:
            # "If the iterable returned by the application has a close() method, the server or gateway must call that
            # method upon completion of the current request, whether the request was completed normally, or terminated
            # early due to an application error during iteration or an early disconnect of the browser."
            self._close(result)
        if self._misuse is not None:
            raise self._misuse

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
                if self._sent:
                    # "If exc_info is provided, and the HTTP headers have already been sent, start_response must raise
                    # an error, and should re-raise using the exc_info tuple."
                    raise exc_info[1].with_traceback(exc_info[2])
            elif self._buffer.started:
                self._fail("start_response called a second time without exc_info")
            match = _STATUS.fullmatch(status) if isinstance(status, str) else None
            if match is None:
                self._fail(f"status {status!r:.60} is not of the form '200 OK'")
            try:
                self._buffer.start(int(match[1]), _fields(headers))
            except BadResponse as error:
                self._fail(str(error))
        finally:
            # "exc_info = None", as in the PEP: the traceback would hold this frame and this frame the traceback.
            exc_info = None
        return self._write

    def _write(self, chunk: bytes) -> None:
        if self.abandoned:
            raise _Abandoned
        if self._misuse is not None:
            raise self._misuse
        if not isinstance(chunk, bytes):
            self._fail(f"body contains {type(chunk).__name__}, not bytes")
        # "the application must invoke the start_response() callable before the iterable yields its first body
        # bytestring"
        if not self._buffer.started:
            self._fail("body before start_response was called")
        # "... headers must not be sent until there is actual body data available": up to here exc_info may change them.
        self._sent = self._sent or chunk != b""
        try:
            self._buffer.write(chunk)
        except BadResponse as error:
            self._fail(str(error))

    def _fail(self, text: str) -> Never:
        self._misuse = BadResponse(text)
        raise self._misuse from None


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
