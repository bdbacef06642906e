"""A client connection that has left HTTP: bytes both ways, with back-pressure (RFC 9110 §7.8)."""

import asyncio
from collections.abc import AsyncIterator, Callable

from rabbitbal.runtime.frames import GOING_AWAY, Frames

READ_AHEAD = 64 * 1024
# Seconds that a client gets to stop sending when the other side has ended.
LINGER = 2.0


class Tunnel(asyncio.Protocol):
    """Takes the place of the HTTP protocol on a transport."""

    def __init__(self, transport: asyncio.Transport, early: bytes, lost: Callable[["Tunnel"], None]) -> None:
        self._transport = transport
        self._lost = lost
        self._received = bytearray(early)
        self._ended = False
        self._closing = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.gone: Callable[[], object] = lambda: None
        """Called when the client has said its last."""
        self.leave: Callable[[], None] = self.close
        transport.resume_reading()

    # --- what the transport calls

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._received += data
        if len(self._received) >= READ_AHEAD:
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> bool:
        if self._closing:
            return False
        self._ended = True
        self._arrived.set()
        self.gone()
        # The other direction stays open: the peer may have its last to say.
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._arrived.set()
        self._writable.set()
        self._lost(self)
        self.gone()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- what uvicorn calls

    def shutdown(self) -> None:
        self.leave()

    # --- what the edge calls

    async def read(self) -> bytes:
        """What has come in, b"" at the end."""
        while not self._received:
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._received)
        self._received.clear()
        self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        await self._writable.wait()
        self.send(data)

    def send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Once the client has seen all that was written: closing with bytes unread is a reset, which may destroy it."""
        if self._closing or self._transport.is_closing():
            return
        self._closing = True
        if self._ended or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER, self._transport.close)


class Parting:
    """What goes out through a tunnel, and the goodbye when the edge leaves: a Close between two frames, and nothing
    behind it. ``parted`` is called then; the client's answer to it goes to the application as all that it sends."""

    def __init__(self, tunnel: Tunnel, parted: Callable[[], object]) -> None:
        self._tunnel = tunnel
        self._parted = parted
        self._frames = Frames()
        self._leaving = False
        self._said = False

    def begin(self) -> None:
        if not self._leaving:
            self._leaving = True
            self._part()

    async def write(self, data: bytes) -> None:
        if not self._said:
            size = self._frames.follow(data, all_of_it=not self._leaving)
            await self._tunnel.write(data[:size])
            self._part()

    def _part(self) -> None:
        if self._leaving and not self._said and self._frames.between:
            self._said = True
            if not self._frames.closed:
                self._tunnel.send(GOING_AWAY)
            self._parted()


class TunnelBody:
    """What the client sends through a tunnel, once there is one, as the body of a request that cannot be repeated."""

    repeatable = False

    def __init__(self) -> None:
        self._tunnel: asyncio.Future[Tunnel] = asyncio.get_running_loop().create_future()

    def attach(self, tunnel: Tunnel) -> None:
        self._tunnel.set_result(tunnel)

    async def pieces(self) -> AsyncIterator[bytes]:
        # Shielded: whoever waits here may be cancelled, and the future is not his.
        tunnel = await asyncio.shield(self._tunnel)
        while data := await tunnel.read():
            yield data

    def close(self) -> None:
        self._tunnel.cancel()
