"""The server's side of an open WebSocket: frames in, frames out, pings, and the closing handshake (RFC 6455).

Reading goes on while the application takes what was read. A message that is too large ends the connection with 1009,
text that is not UTF-8 with 1007, other faults of the client with 1002.
"""

import asyncio
import contextlib
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from rabbitbal.wire.fields import Fields
from rabbitbal.worker.targets.contract import Answer, BadResponse, Body
from rabbitbal.worker.targets.exchange import ClientGone
from rabbitbal.worker.targets.websocket_queues import Assembly, Inbox, Outbox

# Bytes that are looked at before there is room for their messages. Compressed they can be a thousand times as many.
SLICE = 4096
ABNORMAL = 1006


@dataclass(frozen=True)
class Times:
    """Seconds. The first two are uvicorn's."""

    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    close_timeout: float = 5.0
    """How long a client may take to answer a Close."""


TIMES = Times()


class Connection:
    """``open`` begins it, ``ended`` waits for its end, and ``stop`` must follow."""

    def __init__(self, protocol: ServerProtocol, body: Body, answer: Answer, inbox: Inbox, times: Times) -> None:
        self._protocol = protocol
        self._body = body
        self._answer = answer
        self._inbox = inbox
        self._outbox = Outbox(answer)
        self._times = times
        self._assembly = Assembly()
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._lost: OSError | None = None
        self._heard = 0
        self._pinged = b""
        self._ponged = asyncio.Event()

    async def open(self, fields: Fields) -> None:
        """Raises BadResponse for fields that cannot be sent."""
        await self._answer.start(101, fields)
        self._spawn(self._read())
        self._spawn(self._keep_alive())
        self._ending = self._spawn(self._end())

    async def send(self, message: str | bytes) -> None:
        """Wait while the client does not read. Raises ClientGone, UnicodeEncodeError."""
        if self._inbox.ended or self._protocol.state is not State.OPEN:
            raise ClientGone
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._flush()
        try:
            await self._outbox.room()
        except OSError as error:
            raise ClientGone from error

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake, unless it has begun. Raises BadResponse for what no Close may carry."""
        if self._protocol.state is not State.OPEN:
            return
        try:
            self._protocol.send_close(code, reason)
        except (ProtocolError, UnicodeEncodeError) as error:
            raise BadResponse(f"cannot close with code {code} and reason {reason!r:.40}: {error}") from None
        self._inbox.end(code, reason)
        self._flush()
        self._spawn(self._linger())

    async def ended(self) -> None:
        """Until the connection is over and the answer finished. Raises OSError where the client takes no end."""
        await asyncio.wait((self._ending,))
        self._ending.result()

    def stop(self) -> None:
        """Read and send nothing more."""
        self._outbox.stop(ClientGone())
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def _end(self) -> None:
        await self._over.wait()
        await self._outbox.flushed(self._times.ping_timeout)
        if self._lost is not None:
            raise self._lost
        await self._answer.finish()

    async def _read(self) -> None:
        try:
            while (piece := await self._body.read()) and not self._over.is_set():
                self._heard += len(piece)
                for start in range(0, len(piece), SLICE):
                    self._protocol.receive_data(piece[start : start + SLICE])
                    await self._received()
        except OSError as error:
            self._lost = error
        finally:
            # The end of the bytes without a Close.
            self._inbox.end(ABNORMAL)
            self._over.set()

    async def _received(self) -> None:
        # Pongs, and the answer to a Close, do not wait for the application.
        frames = self._protocol.events_received()
        self._flush()
        for frame in frames:
            assert isinstance(frame, Frame)  # noqa: S101 - the handshake is over
            await self._take(frame)
        if self._protocol.parser_exc is not None:
            self._failed()
        await self._outbox.room()

    async def _take(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.PING:
                pass  # answered already
            case Opcode.PONG:
                if frame.data == self._pinged:
                    self._ponged.set()
            case Opcode.CLOSE:
                if (close := self._protocol.close_rcvd) is not None:
                    self._inbox.end(int(close.code), close.reason)
            case _:
                try:
                    message = self._assembly.add(frame)
                except UnicodeDecodeError as error:
                    self._fail(1007, f"{error.reason} at position {error.start}")
                    return
                if message is not None:
                    kind = "text" if isinstance(message, str) else "bytes"
                    await self._inbox.put({"type": "websocket.receive", kind: message}, len(message))

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._times.ping_interval)
            if self._over.is_set():
                return
            self._pinged = os.urandom(4)
            self._ponged.clear()
            self._protocol.send_ping(self._pinged)
            self._flush()
            if not await self._answered():
                self._fail(1011, "keepalive ping timeout")
                return

    async def _answered(self) -> bool:
        """Whether the client shows a sign of life in time. Not hearing it counts for nothing while the application is
        behind, nor while there is much on its way to a client that reads slowly."""
        try:
            await self._outbox.flushed(self._times.ping_timeout)
        except OSError:
            return False
        while not self._ponged.is_set():
            heard, written, behind = self._heard, self._outbox.written, self._inbox.full
            try:
                await asyncio.wait_for(self._ponged.wait(), self._times.ping_timeout)
            except TimeoutError:
                reads = self._outbox.full and self._outbox.written > written
                if not (self._heard > heard or reads or behind or self._inbox.full):
                    return False
        return True

    async def _linger(self) -> None:
        with contextlib.suppress(OSError):  # `ended` meets it, too
            await self._outbox.flushed(self._times.ping_timeout)
            await asyncio.sleep(self._times.close_timeout)
        self._over.set()

    def _fail(self, code: int, reason: str) -> None:
        self._protocol.fail(code, reason)
        self._failed()

    def _failed(self) -> None:
        if (close := self._protocol.close_sent) is not None:
            self._inbox.end(int(close.code), close.reason)
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data == SEND_EOF:
                self._over.set()
            else:
                self._outbox.put(data)
