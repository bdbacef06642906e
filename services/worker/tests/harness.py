"""What the tests of targets need: a target is called with a body in pieces, and its answer is recorded.

The answer is the worker's own, with all its checks, its buffering and its credit; only the way to the broker is
replaced by lists. Use: ``from tests.harness import answer_of``.
"""

import asyncio
import time
from collections.abc import Callable

from rabbitbal.wire.flow import CHUNK
from rabbitbal.wire.message import Request, Response, encode_response
from rabbitbal.wire.reasons import Reason
from rabbitbal.worker.answer import StreamedAnswer
from rabbitbal.worker.targets.contract import Target

PLENTY = 1 << 62


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.001)


class Pieces:
    """The body of a request: what was put, then what is put later, and the end when it was told."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self._ended = False
        self._gone = False
        self._changed = asyncio.Event()

    def put(self, piece: bytes) -> None:
        assert piece, "an empty piece would be the end"
        self._pieces.append(piece)
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    def fail(self) -> None:
        """The client leaves in the middle of its upload."""
        self._gone = True
        self._changed.set()

    @property
    def ended(self) -> bool:
        return self._ended and not self._pieces

    async def read(self) -> bytes:
        """As the worker's: pieces of at most 64 KiB, b"" at the end and ever after; ConnectionError if broken."""
        while not self._pieces:
            if self._gone:
                raise ConnectionResetError("the client is gone")
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        piece = self._pieces.pop(0)
        if len(piece) > CHUNK:
            self._pieces.insert(0, piece[CHUNK:])
        return piece[:CHUNK]


class Tape:
    """Where the recorded messages are. What cannot be encoded raises here as it would on its way to the broker."""

    def __init__(self) -> None:
        self.response: Response | None = None
        self.pieces: list[bytes] = []
        self.complete = False
        self.reason: Reason | None = None

    async def head(self, response: Response, *, more: bool) -> None:
        assert self.response is None, "a second head"
        encode_response(response, more=more)
        self.response = response
        if response.body:
            self.pieces.append(response.body)
        self.complete = not more

    async def piece(self, sequence: int, payload: bytes, more: bool, reason: Reason | None) -> None:
        assert self.response is not None, "a piece before the head"
        assert not self.complete, "a piece behind the last one"
        if payload:
            self.pieces.append(payload)
        self.complete = not more
        self.reason = reason


class Recorder(StreamedAnswer):
    """An answer whose messages are kept. With ``credit=0`` and `grant` it stands for a client that reads slowly."""

    def __init__(self, request: Request, credit: int = PLENTY) -> None:
        self._tape = Tape()
        super().__init__(request, self._tape, credit)

    @property
    def head(self) -> Response | None:
        """Status and fields, once they left; the body is what left together with them."""
        return self._tape.response

    @property
    def pieces(self) -> list[bytes]:
        """What left, message by message: that of the head first. Writes in quick succession make one message."""
        return self._tape.pieces

    @property
    def body(self) -> bytes:
        return b"".join(self._tape.pieces)

    @property
    def complete(self) -> bool:
        """The last message left. (`finished` is what the target said.)"""
        return self._tape.complete

    @property
    def reason(self) -> Reason | None:
        """Why the stream ended early; None where it ended well, or has not ended."""
        return self._tape.reason


async def answer_of(target: Target, request: Request, *pieces: bytes) -> Response:
    """Call a target with a body that is there from the beginning: ``request.body``, then the pieces.

    Raises what the target raises. The body of the result is the whole of it.
    """
    body = Pieces(request.body, *pieces)
    body.end()
    answer = Recorder(request)
    try:
        async with asyncio.timeout(30):
            await target(request, body, answer)
        assert answer.finished, "the target returned without finishing its answer"
        assert answer.head is not None
        assert answer.complete
        return Response(answer.head.status, answer.head.fields, answer.body)
    finally:
        answer.abandon()
