"""WebSocket frames as a client writes and reads them (RFC 6455 §5), right or deliberately wrong."""

import asyncio
import os
import struct
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NAMES = {CONTINUATION: "continuation", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}
RSV1 = 4


class BadFrame(Exception):
    """The server sent what no server may send."""


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = True

    def encode(self) -> bytes:
        head = bytes([self.fin << 7 | self.rsv << 4 | self.opcode])
        size, mask_bit = len(self.payload), self.masked << 7
        if size < 126:
            head += bytes([mask_bit | size])
        elif size < 1 << 16:
            head += struct.pack("!BH", mask_bit | 126, size)
        else:
            head += struct.pack("!BQ", mask_bit | 127, size)
        if not self.masked:
            return head + self.payload
        mask = os.urandom(4)
        return head + mask + masked(self.payload, mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    pad = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(payload), "big")


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Raises EOFError, OSError, BadFrame."""
    first, second = await reader.readexactly(2)
    if second & 0x80:
        raise BadFrame("the server masked a frame")
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    opcode, fin = first & 0x0F, bool(first & 0x80)
    if opcode not in NAMES:
        raise BadFrame(f"the server sent opcode {opcode}")
    if opcode >= CLOSE and (size > 125 or not fin):
        raise BadFrame(f"the server sent a {NAMES[opcode]} of {size} bytes, {'whole' if fin else 'in pieces'}")
    return Frame(opcode, await reader.readexactly(size), fin, first >> 4 & 7, masked=False)


def text(payload: str | bytes, fin: bool = True, rsv: int = 0) -> Frame:
    return Frame(TEXT, payload.encode() if isinstance(payload, str) else payload, fin, rsv)


def binary(payload: bytes, fin: bool = True, rsv: int = 0) -> Frame:
    return Frame(BINARY, payload, fin, rsv)


def more(payload: str | bytes, fin: bool = False) -> Frame:
    """A continuation; the last one has ``fin``."""
    return Frame(CONTINUATION, payload.encode() if isinstance(payload, str) else payload, fin)


def ping(payload: bytes = b"") -> Frame:
    return Frame(PING, payload)


def pong(payload: bytes = b"") -> Frame:
    return Frame(PONG, payload)


def close(code: int | None = 1000, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def pieces(whole: Frame, size: int) -> list[Frame]:
    """The same message in fragments of this size."""
    parts = [whole.payload[at : at + size] for at in range(0, len(whole.payload), size)] or [b""]
    last = len(parts) - 1
    return [
        Frame(CONTINUATION if n else whole.opcode, part, n == last, 0 if n else whole.rsv)
        for n, part in enumerate(parts)
    ]
