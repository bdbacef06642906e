"""HTTP/1.1 on asyncio streams, as little as the measurements need: one request for each connection, bodies piece by
piece in both directions."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

PIECE = 1 << 16


class Failed(Exception):
    """The server did not answer as it should. The text says how."""


@dataclass
class Response:
    status: int
    fields: dict[str, str]
    """By names in lower case."""
    _reader: asyncio.StreamReader

    async def parts(self, piece: int = PIECE) -> AsyncIterator[bytes]:
        """The body. Raises Failed when it ends before its end."""
        try:
            if self.fields.get("transfer-encoding", "").lower() == "chunked":
                while left := int((await self._reader.readline()).split(b";")[0], 16):
                    async for part in self._of_size(left, piece):
                        yield part
                    await self._reader.readexactly(2)
                await self._reader.readline()
            elif "content-length" in self.fields:
                async for part in self._of_size(int(self.fields["content-length"]), piece):
                    yield part
            else:
                while part := await self._reader.read(piece):
                    yield part
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
            raise Failed(f"the connection broke in the middle of the body: {error or type(error).__name__}") from error

    async def _of_size(self, left: int, piece: int) -> AsyncIterator[bytes]:
        while left:
            part = await self._reader.read(min(left, piece))
            if not part:
                raise ConnectionError(f"{left} bytes missing")
            left -= len(part)
            yield part

    async def body(self) -> bytes:
        return b"".join([part async for part in self.parts()])

    def check(self) -> None:
        """Raises Failed for any status but 200."""
        if self.status != 200:
            reason = self.fields.get("rabbitbal-error")
            raise Failed(f"status {self.status}" + (f", {reason}" if reason else ""))


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


async def respond(reader: asyncio.StreamReader) -> Response:
    """The head of the final response."""
    status = 100
    while 100 <= status < 200:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Failed(f"no response: {error}") from error
        status = int(lines[0].split(" ")[1])
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return Response(status, fields, reader)


@asynccontextmanager
async def get(url: str, target: str, buffer: int = 1 << 18) -> AsyncIterator[Response]:
    """``buffer``: bytes that the client takes ahead, in the kernel and here."""
    reader, writer = await _connect(url, buffer)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nConnection: close\r\n\r\n".encode())
        yield await respond(reader)
    finally:
        writer.close()


async def post(url: str, target: str, parts: AsyncIterator[bytes], length: int | None) -> tuple[Response, bytes]:
    """``length`` of None: chunked. An answer that comes before the whole body is sent ends the sending."""
    reader, writer = await _connect(url, 1 << 18)
    kind = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"

    async def send() -> None:
        async for part in parts:
            writer.write(part if length is not None else b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        if length is None:
            writer.write(b"0\r\n\r\n")

    head = f"POST {target} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nConnection: close\r\n{kind}\r\n\r\n"
    writer.write(head.encode())
    sending = asyncio.create_task(send())
    try:
        response = await respond(reader)
        return response, await response.body()
    finally:
        sending.cancel()
        await asyncio.wait((sending,))
        if not sending.cancelled():
            sending.exception()  # a server that refuses closes the connection: its answer says why
        writer.close()


async def _connect(url: str, buffer: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    try:
        await asyncio.get_running_loop().sock_connect(connection, address(url))
    except OSError as error:
        connection.close()
        raise Failed(f"no connection to {url}: {error}") from error
    return await asyncio.open_connection(sock=connection, limit=buffer)
