"""A connection that a test speaks on piece by piece, while it does other things between."""

import json
import socket
from collections.abc import Iterator
from typing import Any, Self

from integration.client import Address

PATIENCE = 30.0
RECEIVE = 65536


class Broken(Exception):
    """The other end closed before what was waited for had come whole."""


class Talk:
    """One HTTP/1.1 connection. Reading is bounded in time: TimeoutError."""

    def __init__(self, address: Address, *, receive_buffer: int | None = None) -> None:
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(address)
        self._buffer = b""
        self.fields: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    # --- what is sent

    def ask(self, method: str, target: str, *lines: str) -> None:
        """A head, and with it nothing."""
        self.send("\r\n".join([f"{method} {target} HTTP/1.1", "Host: test", *lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def chunk(self, data: bytes) -> None:
        """A chunk of a body (RFC 9112 §7.1); an empty one is the last."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    # --- what comes

    def status(self) -> int:
        """Of the next head, whose fields are then in ``fields``."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1])

    def pieces(self) -> Iterator[bytes]:
        """The body, chunk by chunk or as it comes. Raises Broken where it ends too early."""
        if self.fields.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._line(), 16):
                yield self.exactly(size)
                self._line()
            self._line()
            return
        left = int(self.fields["content-length"])
        while left:
            if not self._buffer:
                self._more()
            piece, self._buffer = self._buffer[:left], self._buffer[left:]
            left -= len(piece)
            yield piece

    def body(self) -> bytes:
        return b"".join(self.pieces())

    def json(self) -> Any:
        return json.loads(self.body())

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _more(self) -> None:
        try:
            data = self._socket.recv(RECEIVE)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Broken(f"the connection ended behind {self._buffer[-60:]!r}")
        self._buffer += data
