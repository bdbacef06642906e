"""Servers for the tests of the upstream target: real sockets, and a script of the test at the other end."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from rabbitbal.wire.message import Request
from rabbitbal.worker.targets.upstream import UpstreamTarget, parse_address
from tests.harness import Pieces, Recorder

Script = Callable[["Connection"], Awaitable[None]]


class Connection:
    """The server's end of a connection. ``number`` counts them from 0."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The bytes of the next request; raises IncompleteReadError when the client has closed."""
        head = await self.head()
        lines = head.lower().split(b"\r\n")
        length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
        return head + await self.reader.readexactly(length)

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def chunk(self) -> bytes:
        """The next piece of a chunked body, b"" at its end."""
        data = await self.reader.readexactly(int(await self.reader.readline(), 16) + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def closed(self) -> None:
        """Until the client has closed; what it sends before is dropped."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def abort(self) -> None:
        """Reset, as a server does that has died."""
        linger_not = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        self.writer.transport.abort()


class Upstream:
    """A server that does what the script of the test says on each connection."""

    def __init__(self, script: Script) -> None:
        self.connections = 0
        self._script = script
        self._handlers: set[asyncio.Task[None]] = set()

    def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self.connections, reader, writer)
        self.connections += 1
        self._handlers.add(asyncio.create_task(self._run(connection)))

    async def _run(self, connection: Connection) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            try:
                await self._script(connection)
            finally:
                connection.writer.close()
                await connection.writer.wait_closed()

    async def idle(self) -> None:
        """Until every connection has been closed by the client, or by its script."""
        async with asyncio.timeout(10):
            await asyncio.wait(self._handlers)

    async def close(self) -> None:
        """End every connection; what a script asserted in vain fails the test."""
        if self._handlers:
            _, running = await asyncio.wait(self._handlers, timeout=0.2)
            for handler in running:
                handler.cancel()
            for outcome in await asyncio.gather(*self._handlers, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome


@contextlib.asynccontextmanager
async def serve(script: Script, path: Path | None = None, **options: Any) -> AsyncIterator[tuple[Any, Upstream]]:
    """A server with that script, and a target that forwards to it (not started: that would make a connection)."""
    upstream = Upstream(script)
    if path is None:
        server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(upstream.handle, str(path))
        address = f"unix:{path}"
    target = target_of(address, **options)
    try:
        yield target, upstream
    finally:
        await target.stop()
        server.close()
        await upstream.close()


def target_of(address: str, slots: int = 4, streams: int = 0, **options: Any) -> UpstreamTarget:
    return UpstreamTarget(parse_address(address), slots=slots, streams=streams, **options)


class Forwarding:
    """A call of the target that the test feeds and watches."""

    def __init__(self, target: UpstreamTarget, request: Request, *, body: Any = None, credit: int = 1 << 62) -> None:
        self.body = body or Pieces(request.body)
        self.answer = Recorder(request, credit)
        self.task = asyncio.create_task(target(request, self.body, self.answer))

    async def __aenter__(self) -> "Forwarding":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.answer.abandon()
        self.task.cancel()
        await asyncio.wait((self.task,), timeout=10)
        assert self.task.done()

    async def ended(self) -> None:
        """The call returns, or raises what it raises."""
        async with asyncio.timeout(20):
            await self.task
