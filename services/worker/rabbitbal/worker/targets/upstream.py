"""Forwards requests to an HTTP server: any language's web server beside its worker."""

import asyncio
import re
from typing import Any
from urllib.parse import urlsplit

import h11
import structlog

from rabbitbal.wire.fields import Fields, end_to_end, first, without
from rabbitbal.wire.message import Request
from rabbitbal.worker.targets.connection import Connection
from rabbitbal.worker.targets.contract import Answer, BadResponse, Body, TargetError
from rabbitbal.worker.targets.forwarding import forward
from rabbitbal.worker.targets.keeping import Kept
from rabbitbal.worker.targets.network import Address, Lost, Wire
from rabbitbal.worker.targets.tunnel import Tunnel
from rabbitbal.worker.targets.upload import Upload

START_PATIENCE = 60.0
_START_POLL = 0.25
_CONNECT_TIMEOUT = 5.0

# RFC 9110 §9.2.2: "PUT, DELETE, and safe request methods are idempotent."
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


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
    """At most ``slots`` + ``streams`` connections; beyond that, requests wait."""

    # What goes on for long is one connection, and no thread.
    detachable = True

    def __init__(
        self, address: Address, *, slots: int, streams: int, patience: float = START_PATIENCE, log: Any = None
    ) -> None:
        self._address = address
        self._patience = patience
        self._log = log or structlog.get_logger()
        self._kept = Kept()
        self._places = asyncio.Semaphore(slots + streams)
        self._tunnels: set[Tunnel] = set()
        self._draining = False

    async def start(self) -> None:
        """Wait until the upstream accepts a connection: it and its worker may start in any order."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        waiting = False
        while True:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    wire = await Wire.connect(self._address)
                wire.close()
                return
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

    def drain(self) -> None:
        self._draining = True
        for tunnel in self._tunnels:
            tunnel.leave()

    async def stop(self) -> None:
        self._kept.close()

    async def __call__(self, request: Request, body: Body, answer: Answer) -> None:
        upload = await Upload.of(request, body)
        try:
            async with self._places:
                await self._run(request, upload, body, answer)
        finally:
            await upload.close()
        await answer.finish()

    async def _run(self, request: Request, upload: Upload, body: Body, answer: Answer) -> None:
        # A connection that was kept may be closed just now; what cannot be sent again must not meet that.
        if upload.whole and request.upgrade is None and (kept := self._kept.take()) is not None:
            try:
                return await self._try(kept, request, upload, body, answer)
            except (Lost, h11.ProtocolError) as error:
                if not _may_repeat(request, kept, error):
                    raise self._failure(error, kept) from error
        self._kept.drop()
        connection = Connection(await self._connect())
        try:
            await self._try(connection, request, upload, body, answer)
        except (Lost, h11.ProtocolError) as error:
            raise self._failure(error, connection) from error

    async def _try(self, connection: Connection, request: Request, upload: Upload, body: Body, answer: Answer) -> None:
        try:
            upgraded = await forward(connection, self._head(connection, request, upload), upload, answer)
            if upgraded:
                await self._tunnel(Tunnel(connection.wire, connection.behind, body, answer))
        except BaseException:
            # The upstream sees by this that nobody waits any longer.
            connection.wire.close()
            raise
        self._kept.give(connection)

    async def _tunnel(self, tunnel: Tunnel) -> None:
        if self._draining:
            tunnel.leave()
        self._tunnels.add(tunnel)
        try:
            await tunnel.run()
        finally:
            self._tunnels.discard(tunnel)

    async def _connect(self) -> Wire:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                return await Wire.connect(self._address)
        except TimeoutError as error:
            raise BadResponse(f"{self._name} did not accept a connection within {_CONNECT_TIMEOUT:g} s") from error
        except OSError as error:
            raise BadResponse(f"{self._name} refused the connection ({error})") from error

    def _head(self, connection: Connection, request: Request, upload: Upload) -> bytes:
        # RFC 3986 §2 knows no octets above 0x7f and h11 writes none; percent-encoded they mean the same.
        target = _BEYOND_ASCII.sub(lambda octet: b"%%%02X" % octet[0][0], request.target)
        return connection.head(request.method, target, self._fields(request, upload))

    def _fields(self, request: Request, upload: Upload) -> Fields:
        # The body is sent without waiting; the edge has answered the client's Expect.
        fields = [*without(end_to_end(request.fields), b"expect", b"content-length"), *upload.fields()]
        if request.upgrade is not None:
            fields = [*fields, (b"Connection", b"Upgrade"), (b"Upgrade", request.upgrade.encode())]
        if first(fields, b"host") is None:
            # RFC 9112 §3.2: "A client MUST send a Host header field in all HTTP/1.1 request messages."
            fields = [(b"Host", f"{self._address.host}:{self._address.port}".encode()), *fields]
        return fields

    @property
    def _name(self) -> str:
        return f"upstream {self._address.text}"

    def _failure(self, error: Exception, connection: Connection) -> BadResponse:
        match error:
            case h11.LocalProtocolError():
                return BadResponse(f"{self._name} cannot be sent this request: {error}")
            case _ if not connection.wire.received:
                return BadResponse(f"{self._name} closed the connection without a response")
            case h11.RemoteProtocolError():
                return BadResponse(f"{self._name} sent an invalid response: {error}")
            case _:
                return BadResponse(f"{self._name} closed the connection in the middle of its response")


def _may_repeat(request: Request, connection: Connection, error: Exception) -> bool:
    """Whether a kept connection was closed by the upstream just when it was used again, and the request is unharmed.

    RFC 9110 §9.2.2: "A client SHOULD NOT automatically retry a request with a non-idempotent method unless it has some
    means to know that the request semantics are actually idempotent ... or some means to detect that the original
    request was never applied."
    """
    if not isinstance(error, Lost) or connection.wire.received:
        return False
    return request.method in _IDEMPOTENT or not connection.wire.sent
