"""A connection to the upstream, as bytes.

A plain socket, and no transport of asyncio's: a transport that fails to send gives up what it could still receive, and
that may be the answer of a server that refuses an upload ("413") and closes. The kernel's buffers are the only ones, so
either side's slowness reaches the other.
"""

import asyncio
import select
import socket
from contextlib import suppress
from dataclasses import dataclass

_READ = 64 * 1024


@dataclass(frozen=True)
class Address:
    """Where the upstream listens: on a Unix socket if ``socket`` is set. ``text`` is how the operator wrote it."""

    text: str
    host: str = "localhost"
    port: int = 80
    socket: str | None = None


class Lost(Exception):
    """The upstream has closed or reset the connection."""


class Wire:
    """``sent``, ``received``: at least one byte was, since `begin`."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self.sent = False
        self.received = False

    @classmethod
    async def connect(cls, address: Address) -> "Wire":
        """Raises OSError. Not bounded in time."""
        if address.socket is not None:
            return cls(await _connected(socket.AF_UNIX, 0, address.socket))
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        for family, _, protocol, _, place in await loop.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM
        ):
            try:
                connected = await _connected(family, protocol, place)
            except OSError as error:
                failure = failure or error
                continue
            # As asyncio's own transports: a head must not wait for the acknowledgement of what was sent before.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return cls(connected)
        raise failure or OSError("the host has no address")

    def begin(self) -> None:
        """Another request."""
        self.sent = self.received = False

    @property
    def readable(self) -> bool:
        """On a connection that nothing is expected from: it was closed, or the upstream speaks out of turn."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def send_now(self, data: bytes) -> int:
        """Send what the kernel takes at once. The number of bytes. Raises Lost."""
        try:
            size = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise Lost(str(error)) from error
        self.sent = self.sent or size > 0
        return size

    async def send(self, data: bytes) -> None:
        """Raises Lost."""
        self.sent = True
        try:
            await self._loop.sock_sendall(self._socket, data)
        except OSError as error:
            raise Lost(str(error)) from error

    async def receive(self) -> bytes:
        """At most 64 KiB, b"" at the end. Raises Lost."""
        try:
            data = await self._loop.sock_recv(self._socket, _READ)
        except OSError as error:
            raise Lost(str(error)) from error
        self.received = self.received or bool(data)
        return data

    def end(self) -> None:
        """Nothing more will be sent; the upstream may still send."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """At once. Nobody may be sending or receiving any longer."""
        self._socket.close()


async def _connected(family: int, protocol: int, place: object) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, place)  # type: ignore[arg-type]
    except BaseException:
        made.close()
        raise
    return made
