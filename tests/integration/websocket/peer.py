"""The client of the conformance list: plays one case against one server, byte by byte."""

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
import struct

from integration.client import Address
from integration.websocket.case import Await, Case, Packed, Step, Transcript, shown
from integration.websocket.deflate import Deflate
from integration.websocket.frames import (
    CLOSE,
    CONTINUATION,
    NAMES,
    PING,
    PONG,
    RSV1,
    BadFrame,
    Frame,
    close,
    pieces,
    pong,
    read_frame,
)

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PATIENCE = 8.0
AFTER_CLOSE = 4.0
HEAD = (
    "GET {path} HTTP/1.1\nHost: {host}\nUpgrade: websocket\nConnection: Upgrade\n"
    "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: {key}\n{fields}\n"
)
SELECTED = ("sec-websocket-protocol", "sec-websocket-extensions", "set-cookie", "x-seen", "x-why", "content-type")


async def play(case: Case, address: Address) -> Transcript:
    """Never raises: what goes wrong is in the transcript."""
    transcript = Transcript()
    try:
        reader, writer = await asyncio.open_connection(*address, limit=1 << 20)
    except OSError as error:
        transcript.fault = f"no connection: {error}"
        return transcript
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        async with asyncio.timeout(PATIENCE):
            await Peer(case, transcript, reader, writer).play(f"{address[0]}:{address[1]}")
    except TimeoutError:
        pass  # the transcript says: open
    except BadFrame as error:
        transcript.fault = str(error)
    except asyncio.IncompleteReadError:
        transcript.end = "closed"
    except OSError:
        transcript.end = "reset"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return transcript


class Peer:
    def __init__(
        self, case: Case, transcript: Transcript, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._case, self._transcript, self._reader, self._writer = case, transcript, reader, writer
        self._came = asyncio.Event()
        self._deflate: Deflate | None = None
        self._sent_close = False

    async def play(self, host: str) -> None:
        await self._shake_hands(host)
        if self._transcript.status != 101:
            return
        sending = asyncio.create_task(self._send())
        try:
            await self._receive()
        finally:
            sending.cancel()
            # A server that has failed the connection takes no more: that is no news.
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending

    # --- the handshake (§4)

    async def _shake_hands(self, host: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        fields = "".join(f"{name}: {value}\n" for name, value in self._case.fields)
        head = (self._case.head or HEAD).format(path=self._case.path, host=host, key=key, fields=fields)
        await self._write(head.replace("\n", "\r\n").encode())
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self._transcript.status = int(lines[0].split(" ")[1])
        selected = self._transcript.selected
        for name, _, value in (line.partition(":") for line in lines[1:]):
            if (known := name.lower()) in (*SELECTED, "sec-websocket-accept"):
                selected[known] = f"{selected[known]}, {value.strip()}" if known in selected else value.strip()
        if self._transcript.status != 101:
            self._transcript.end = "answered"
            return
        accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        if selected.pop("sec-websocket-accept", None) != accept:
            raise BadFrame("Sec-WebSocket-Accept is wrong")
        if extensions := selected.get("sec-websocket-extensions"):
            self._deflate = Deflate(extensions)
        elif any(isinstance(step, Packed) for step in self._case.steps):
            raise BadFrame("the server did not take permessage-deflate")

    # --- what goes out

    async def _send(self) -> None:
        for step in self._case.steps:
            if isinstance(step, Await):
                await self._until(step.messages)
            else:
                for part in self._encoded(step):
                    await self._write(part)
        if not self._case.closes:
            await self._until(len(self._case.expected))
            self._sent_close = True
            await self._write(close(1000).encode())

    def _encoded(self, step: Step) -> list[bytes]:
        if isinstance(step, bytes):
            return [step]
        if isinstance(step, Frame):
            self._sent_close |= step.opcode == CLOSE
            return [step.encode()]
        assert isinstance(step, Packed)
        assert self._deflate is not None
        packed = Frame(step.message.opcode, self._deflate.compress(step.message.payload), rsv=RSV1)
        return [frame.encode() for frame in pieces(packed, step.fragment)]

    async def _until(self, messages: int) -> None:
        while len(self._transcript.messages) < messages:
            self._came.clear()
            await self._came.wait()

    async def _write(self, message: bytes) -> None:
        size = self._case.chop or len(message)
        for at in range(0, len(message), size):
            self._writer.write(message[at : at + size])
            await self._writer.drain()
            if self._case.chop:
                await asyncio.sleep(0)

    # --- what comes in

    async def _receive(self) -> None:
        whole, opcode, packed = bytearray(), CONTINUATION, False
        while True:
            frame = await read_frame(self._reader)
            if frame.opcode == CLOSE:
                await self._closed(frame.payload)
                return
            if frame.opcode == PING:
                self._writer.write(pong(frame.payload).encode())
                continue
            if frame.opcode == PONG:
                self._note(PONG, frame.payload)
                continue
            if (frame.opcode == CONTINUATION) == (opcode == CONTINUATION):
                raise BadFrame(f"the server sent a {NAMES[frame.opcode]} frame out of turn")
            if frame.opcode != CONTINUATION:
                opcode, packed = frame.opcode, bool(frame.rsv & RSV1)
            whole += frame.payload
            if frame.fin:
                self._note(opcode, self._unpacked(bytes(whole)) if packed else bytes(whole))
                whole.clear()
                opcode = CONTINUATION

    def _unpacked(self, payload: bytes) -> bytes:
        if self._deflate is None:
            raise BadFrame("the server compressed a message without having agreed to")
        return self._deflate.decompress(payload)

    def _note(self, opcode: int, payload: bytes) -> None:
        self._transcript.messages.append(shown(opcode, payload))
        self._came.set()

    async def _closed(self, payload: bytes) -> None:
        """§7.1: whoever gets a close frame answers it, and the server ends the connection first."""
        self._transcript.code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
        self._transcript.reason = payload[2:].decode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            if not self._sent_close:
                self._writer.write(Frame(CLOSE, payload[:2]).encode())
                await self._writer.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AFTER_CLOSE):
                rest = await self._reader.read()
                self._transcript.end = "closed"
                if rest:
                    raise BadFrame(f"the server sent {len(rest)} bytes after its close frame")
