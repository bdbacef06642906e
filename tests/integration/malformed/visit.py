"""A client that sends anything, and says how the connection ended."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from integration.client import Address

STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
REASON = re.compile(rb"(?i)\r\nrabbitbal-error: *([^\r\n]*)")
AT_ONCE = 64


@dataclass
class Visit:
    """``ended``: the other side closed, within the deadline."""

    what: str
    message: bytes
    ended: bool = False
    seconds: float = 0.0
    received: bytes = b""
    statuses: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[int]:
        """Statuses of 500 and more that nobody puts a name to."""
        unnamed = [status for status in self.statuses if status >= 500]
        return unnamed[len(self.reasons) :] if len(self.reasons) < len(self.statuses) else []

    @property
    def ending(self) -> str:
        if not self.ended:
            return "open"
        return " ".join([*map(str, self.statuses), *self.reasons]) or "closed"

    def __str__(self) -> str:
        shown = self.message if len(self.message) < 3000 else self.message[:3000] + b"..."
        end = f"{self.ending} in {self.seconds:.1f} s"
        return f"{self.what} ({len(self.message)} bytes): {shown!r}\n-> {end}: {self.received[:1000]!r}"


def visits(
    address: Address, messages: Iterable[tuple[str, bytes]], rest: float, deadline: float, at_once: int = AT_ONCE
) -> list[Visit]:
    """Each on a connection of its own. After so many seconds of ``rest`` our half of it is closed; then the other side
    has the ``deadline``."""

    async def run() -> list[Visit]:
        gate = asyncio.Semaphore(at_once)

        async def one(what: str, message: bytes) -> Visit:
            async with gate:
                return await _visit(address, Visit(what, message), rest, deadline)

        return await asyncio.gather(*(one(*each) for each in messages))

    return asyncio.run(run())


async def _visit(address: Address, visit: Visit, rest: float, deadline: float) -> Visit:
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    parts: list[bytes] = []

    async def read() -> None:
        """To the end of the connection."""
        # A reset is an end, too.
        with contextlib.suppress(OSError):
            while part := await loop.sock_recv(connection, 65536):
                parts.append(part)
        visit.ended = True

    async def send() -> None:
        with contextlib.suppress(OSError):
            await loop.sock_sendall(connection, visit.message)

    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, address)
        reading, sending = loop.create_task(read()), loop.create_task(send())
        count = -1
        while not reading.done() and count < len(parts):
            count = len(parts)
            await asyncio.wait([reading], timeout=rest)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        await asyncio.wait([reading], timeout=deadline)
        for task in (reading, sending):
            task.cancel()
        await asyncio.wait([reading, sending])
    visit.seconds = time.monotonic() - began
    visit.received = b"".join(parts)
    visit.statuses = [status for found in STATUS.findall(visit.received) if (status := int(found)) >= 200]
    visit.reasons = [found.decode("latin-1") for found in REASON.findall(visit.received)]
    return visit
