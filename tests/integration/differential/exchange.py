"""A client on bare sockets: sends the bytes that it is given, and reads the answer to the letter."""

import asyncio
import contextlib
import re
import socket
from dataclasses import dataclass, field

from integration.client import Address
from integration.differential.case import FOLLOWED, Case, Field

STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: .*)?")
PATIENCE = 20.0


class Broken(Exception):
    """The connection ended, or went wrong, in the middle of an answer."""


@dataclass
class Answer:
    """What one side said. ``ending`` is `complete`, or how it was not."""

    status: int = 0
    fields: list[Field] = field(default_factory=list)
    body: bytes = b""
    framing: str = ""
    ending: str = ""
    interim: list[int] = field(default_factory=list)
    follow: str = ""
    """What became of the second request: `answered`, or how it was not."""


class Reader:
    """Answers off a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    async def answer(self, method: bytes) -> Answer:
        """Never raises but for CancelledError."""
        found = Answer()
        try:
            await self._head(found)
            found.ending = "cut in the body"
            await self._body(found, method)
            found.ending = "complete"
        except EOFError:
            if not found.ending:
                found.ending = "cut in the head" if self._buffer else "closed"
        except Broken as broken:
            found.ending = f"{broken}: {self._buffer[:200]!r}"
        except OSError as error:
            found.ending = found.ending or f"closed: {type(error).__name__}"
        return found

    async def _head(self, found: Answer) -> None:
        while not found.status:
            start, *lines = (await self._until(b"\r\n\r\n")).split(b"\r\n")
            matched = STATUS_LINE.fullmatch(start)
            if not matched:
                raise Broken(f"no status line in {start[:100]!r}")
            status = int(matched[1])
            if 100 <= status < 200 and status != 101:
                found.interim.append(status)
                continue
            found.status = status
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise Broken(f"no field line in {line[:100]!r}")
            found.fields.append((name, value.strip(b" \t")))

    async def _body(self, found: Answer, method: bytes) -> None:
        given = {name.lower(): value for name, value in found.fields}
        if method == b"HEAD" or found.status in (204, 304):
            found.framing = "none"
        elif b"transfer-encoding" in given:
            found.framing = "chunked"
            while size := self._size(await self._until(b"\r\n")):
                found.body += await self._exactly(size)
                if await self._exactly(2) != b"\r\n":
                    raise Broken("a chunk without its end")
            while await self._until(b"\r\n"):
                pass
        elif b"content-length" in given:
            found.framing = "length"
            size = int(given[b"content-length"])
            while len(found.body) < size:
                found.body += await self._exactly(min(65536, size - len(found.body)), some=True)
        else:
            found.framing = "close"
            with contextlib.suppress(EOFError):
                while True:
                    found.body += await self._exactly(65536, some=True)

    @staticmethod
    def _size(line: bytes) -> int:
        try:
            return int(line, 16)
        except ValueError:
            raise Broken(f"no chunk size in {line[:50]!r}") from None

    async def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            await self._more()
        found, _, self._buffer = self._buffer.partition(end)
        return found

    async def _exactly(self, size: int, *, some: bool = False) -> bytes:
        while len(self._buffer) < size and not (some and self._buffer):
            await self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    async def _more(self) -> None:
        part = await asyncio.get_running_loop().sock_recv(self._connection, 65536)
        if not part:
            raise EOFError
        self._buffer += part


async def exchange(address: Address, case: Case) -> Answer:
    """The case on a connection of its own. What takes longer than `PATIENCE` ends as `late`."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(connection, address)
        reader = Reader(connection)
        # An early answer is read while the request still goes out; what is then refused is not missed.
        sending = loop.create_task(_send(connection, case.message()))
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await reader.answer(case.method)
                if case.follow and answer.ending == "complete":
                    answer.follow = await _follow(connection, reader, case, sending)
        except TimeoutError:
            answer = Answer(ending="late")
        finally:
            sending.cancel()
            await asyncio.wait([sending])
    return answer


async def _follow(connection: socket.socket, reader: Reader, case: Case, sending: "asyncio.Task[None]") -> str:
    if case.follow == "after":
        await asyncio.wait([sending])
        await _send(connection, case.second())
    answer = await reader.answer(b"GET")
    if (answer.status, answer.ending) == (FOLLOWED, "complete"):
        return "answered"
    # That the connection is closed can be met before or behind the request.
    return "closed" if answer.ending.startswith("closed") else f"{answer.status} {answer.ending}"


async def _send(connection: socket.socket, message: bytes) -> None:
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_sendall(connection, message)
