"""Forwards requests to an HTTP server: any language's web server beside its worker."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpcore
import structlog

from rabbitbal.wire.fields import Fields, end_to_end, first, without
from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets.contract import BadResponse, TargetError
from rabbitbal.worker.targets.framing import BufferedResponse
from rabbitbal.worker.targets.network import Attempt, ObservedBackend, current

START_PATIENCE = 60.0
_START_POLL = 0.25
_CONNECT_TIMEOUT = 5.0
# Less than what common servers allow an idle connection (gunicorn 2 s, uvicorn, Node.js and nginx upwards of 5 s), so
# that it is us who closes it and hardly any request meets a connection that is being closed.
_KEEPALIVE = 1.5

# RFC 9110 §9.2.2: "PUT, DELETE, and safe request methods are idempotent."
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")

_Failures = (httpcore.ProtocolError, httpcore.NetworkError, httpcore.TimeoutException)
_Transport = httpcore.AsyncConnectionPool | httpcore.AsyncHTTPConnection


@dataclass(frozen=True)
class Address:
    """Where the upstream listens: on a Unix socket if ``socket`` is set. ``text`` is how the operator wrote it."""

    text: str
    host: str = "localhost"
    port: int = 80
    socket: str | None = None


def parse_address(text: str) -> Address:
    """``http://host:port`` or ``unix:/path``. Raises TargetError."""
    text = text.strip()
    if text.startswith("unix:/"):
        return Address(text, socket=text.removeprefix("unix:"))
    try:
        url = urlsplit(text)
        port = 80 if url.port is None else url.port
        plain = url.scheme == "http" and url.path in ("", "/") and not (url.query or url.fragment or "@" in url.netloc)
        if plain and url.hostname and port and url.hostname.isascii():
            return Address(text, url.hostname, port)
    except ValueError:
        pass
    raise TargetError(f"RABBITBAL_UPSTREAM={text!r} is not of the form http://host:port or unix:/path")


class UpstreamTarget:
    def __init__(
        self, address: Address, *, slots: int, response_limit: int, patience: float = START_PATIENCE, log: Any = None
    ) -> None:
        self._address = address
        self._limit = response_limit
        self._patience = patience
        self._log = log or structlog.get_logger()
        self._backend = ObservedBackend()
        self._origin = httpcore.Origin(b"http", address.host.encode(), address.port)
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=slots,
            keepalive_expiry=_KEEPALIVE,
            uds=address.socket,
            network_backend=self._backend,
        )

    async def start(self) -> None:
        """Wait until the upstream accepts a connection: it and its worker may start in any order."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        waiting = False
        while True:
            try:
                return await self._probe()
            except OSError as error:
                if loop.time() >= deadline:
                    raise TargetError(
                        f"RABBITBAL_UPSTREAM={self._address.text} accepted no connection within {self._patience:g} s:"
                        f" {error or type(error).__name__}"
                    ) from error
                if not waiting:
                    self._log.info("waiting for the upstream", upstream=self._address.text, error=str(error))
                    waiting = True
            await asyncio.sleep(min(_START_POLL, max(0.0, deadline - loop.time())))

    async def stop(self) -> None:
        await self._pool.aclose()

    async def __call__(self, request: Request) -> Response:
        attempt = Attempt()
        try:
            return await self._try(self._pool, request, attempt)
        except _Failures as error:
            if not _may_repeat(request, attempt, error):
                raise self._failure(error, attempt) from error
        attempt = Attempt()
        connection = httpcore.AsyncHTTPConnection(self._origin, uds=self._address.socket, network_backend=self._backend)
        try:
            return await self._try(connection, request, attempt)
        except _Failures as error:
            raise self._failure(error, attempt) from error
        finally:
            await connection.aclose()

    async def _probe(self) -> None:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            if self._address.socket is not None:
                _, writer = await asyncio.open_unix_connection(self._address.socket)
            else:
                _, writer = await asyncio.open_connection(self._address.host, self._address.port)
        writer.close()

    async def _try(self, transport: _Transport, request: Request, attempt: Attempt) -> Response:
        token = current.set(attempt)
        try:
            answer = await transport.handle_async_request(self._outgoing(request))
            buffer = BufferedResponse(request.method, self._limit)
            try:
                buffer.start(answer.status, answer.headers)
                async for chunk in answer.aiter_stream():
                    buffer.write(chunk)
            finally:
                # A body that was not read to its end closes the connection.
                await answer.aclose()
            return buffer.finish()
        finally:
            current.reset(token)

    def _outgoing(self, request: Request) -> httpcore.Request:
        # RFC 3986 §2 knows no octets above 0x7f and the client library writes none; percent-encoded they mean the same.
        target = _BEYOND_ASCII.sub(lambda octet: b"%%%02X" % octet[0][0], request.target)
        url = httpcore.URL(scheme=self._origin.scheme, host=self._origin.host, port=self._origin.port, target=target)
        # Time is bounded by whoever called: a slow answer is no failure of the upstream.
        extensions = {"timeout": {"connect": _CONNECT_TIMEOUT}}
        fields = self._fields(request)
        return httpcore.Request(request.method, url, headers=fields, content=request.body, extensions=extensions)

    def _fields(self, request: Request) -> Fields:
        # The body goes out at once, so there is nothing to expect; the edge has answered the client's Expect.
        fields = without(end_to_end(request.fields), b"expect")
        if request.body or first(fields, b"content-length") is not None:
            fields = [*without(fields, b"content-length"), (b"Content-Length", b"%d" % len(request.body))]
        if first(fields, b"host") is None:
            # RFC 9112 §3.2: "A client MUST send a Host header field in all HTTP/1.1 request messages."
            fields = [(b"Host", f"{self._address.host}:{self._address.port}".encode()), *fields]
        return fields

    def _failure(self, error: Exception, attempt: Attempt) -> BadResponse:
        name = f"upstream {self._address.text}"
        match error:
            case httpcore.ConnectTimeout():
                return BadResponse(f"{name} did not accept a connection within {_CONNECT_TIMEOUT:g} s")
            case httpcore.ConnectError():
                return BadResponse(f"{name} refused the connection ({error})")
            case httpcore.LocalProtocolError():
                return BadResponse(f"{name} cannot be sent this request: {error}")
            case _ if not attempt.received:
                return BadResponse(f"{name} closed the connection without a response")
            case httpcore.RemoteProtocolError():
                return BadResponse(f"{name} sent an invalid response: {error}")
            case _:
                return BadResponse(f"{name} closed the connection in the middle of its response")


def _may_repeat(request: Request, attempt: Attempt, error: Exception) -> bool:
    """Whether a kept connection was closed by the upstream just when it was used again, and the request is unharmed.

    RFC 9110 §9.2.2: "A client SHOULD NOT automatically retry a request with a non-idempotent method unless it has some
    means to know that the request semantics are actually idempotent ... or some means to detect that the original
    request was never applied."
    """
    if not isinstance(error, httpcore.NetworkError | httpcore.RemoteProtocolError):
        return False
    if attempt.connected or attempt.received:
        return False
    return request.method in _IDEMPOTENT or not attempt.sent
