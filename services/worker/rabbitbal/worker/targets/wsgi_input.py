"""``wsgi.input``: the body of a request as a file, which a thread reads while it arrives."""

import io
from collections.abc import Callable
from typing import Any

from rabbitbal.wire.fields import content_length
from rabbitbal.wire.message import Request


def wsgi_input(request: Request, opening: bytes, read: Callable[[], bytes]) -> io.BufferedIOBase:
    """``opening`` is the piece that is here already; ``read`` waits for the next one, and gives b"" at the end."""
    declared = content_length(request.fields)
    # What a client sends behind an upgrade is no body, and there is no upgrade here.
    if request.upgrade is not None or declared == len(opening):
        return io.BytesIO(opening)
    return io.BufferedReader(_Pieces(opening, declared, read))


class _Pieces(io.RawIOBase):
    """Ends with the declared length, and asks for nothing behind it; else with the last piece."""

    def __init__(self, opening: bytes, declared: int | None, read: Callable[[], bytes]) -> None:
        self._piece = memoryview(opening)
        self._left = None if declared is None else declared - len(opening)
        self._read = read
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._fetch()
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size

    def readall(self) -> bytes:
        pieces = []
        while self._fetch():
            pieces.append(bytes(self._piece))
            self._piece = memoryview(b"")
        return b"".join(pieces)

    def _fetch(self) -> bool:
        """Have a piece at hand. False at the end. Raises OSError where the body broke off."""
        if not self._piece and not self._ended and self._left != 0:
            piece = self._read()
            if not piece:
                self._ended = True
                if self._left:
                    # A part of a body must not pass for the whole of it.
                    raise ConnectionResetError(f"the body of the request ended {self._left} bytes before its end")
            elif self._left is not None:
                piece = piece[: self._left]
                self._left -= len(piece)
            self._piece = memoryview(piece)
        return len(self._piece) > 0
