"""A body in pieces, as its two ends see it: an `Outlet` sends under credit, an `Inlet` receives and grants it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from rabbitbal.wire import flow
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.reasons import Reason

# Messages of one stream that the broker has not confirmed yet. Their order is that of their publishing.
AHEAD = 4


class Broken(Exception):
    """The stream ended before its end. ``reason`` is what the peer said, if it said anything."""

    def __init__(self, text: str, reason: Reason | None = None) -> None:
        super().__init__(text)
        self.reason = reason


class Outlet:
    """Sends a body. ``send`` publishes one message (sequence, payload, more, reason) and raises when it cannot."""

    def __init__(self, send: Callable[[int, bytes, bool, Reason | None], Awaitable[None]], credit: int) -> None:
        self._send = send
        self._flow = flow.Outflow(credit)
        self._more_credit = asyncio.Event()
        self._sending: deque[asyncio.Task[None]] = deque()
        self._failed: BaseException | None = None

    def grant(self, credit: int) -> None:
        self._flow.grant(credit)
        self._more_credit.set()

    @property
    def blocked(self) -> bool:
        """There is no credit for another piece."""
        return not self._flow.room

    async def write(self, data: bytes) -> None:
        """Send in pieces, waiting for credit. Raises what ``send`` raises."""
        view = memoryview(data)
        while view:
            while not (room := self._flow.room):
                # The receiver grants nothing for what it never got.
                if self._failed is not None:
                    raise self._failed
                self._more_credit.clear()
                await self._more_credit.wait()
            piece, view = bytes(view[:room]), view[room:]
            await self._post(piece, more=True, reason=None)

    @property
    def next(self) -> int:
        """The sequence number of the next message."""
        return self._flow.sequence + 1

    async def end(self, reason: Reason | None = None) -> None:
        """Send the last message; the broker has all of them on return."""
        await self._post(b"", more=False, reason=reason)
        while self._sending:
            await self._sending.popleft()

    def abandon(self) -> None:
        """Nobody listens any longer."""
        while self._sending:
            self._sending.popleft().cancel()

    async def _post(self, piece: bytes, *, more: bool, reason: Reason | None) -> None:
        while len(self._sending) >= AHEAD:
            await self._sending.popleft()
        sequence = self._flow.send(piece, last=not more)
        sending = asyncio.ensure_future(self._send(sequence, piece, more, reason))
        sending.add_done_callback(self._sent)
        self._sending.append(sending)

    def _sent(self, task: "asyncio.Task[None]") -> None:
        # Looked at here: one that fails while nobody waits for it is no news to the loop.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed = self._failed or error
            self._more_credit.set()


class Inlet:
    """Receives a body. ``grant`` is told the new credit when the reader has made room."""

    def __init__(self, grant: Callable[[int], None], window: int = flow.WINDOW) -> None:
        self._grant = grant
        self._flow = flow.Inflow(window)
        self._pieces: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._broken: Broken | None = None
        self._whole = False

    @property
    def credit(self) -> int:
        """What the sender may send from the start."""
        return self._flow.granted

    @property
    def ended(self) -> bool:
        """The peer has said its last, though perhaps it was not read."""
        return self._flow.ended

    @property
    def exhausted(self) -> bool:
        """The body is whole, and all of it was read."""
        return self._whole and not self._pieces

    def receive(self, sequence: int | None, payload: bytes, *, more: bool, reason: Reason | None = None) -> None:
        """Take a message in. Raises WireError, and is broken then, for one that does not continue the body."""
        try:
            self._flow.receive(sequence or 0, payload, more=more)
        except WireError as error:
            self.fail(Broken(str(error), Reason.BAD_RESPONSE))
            raise
        if payload:
            self._pieces.append(payload)
        if reason is not None:
            self.fail(Broken(f"ended by {reason}", reason))
        elif not more:
            self._whole = True
        self._arrived.set()

    def widen(self, window: int) -> None:
        """Let the sender be further ahead."""
        self._grant(self._flow.widen(window))

    def fail(self, broken: Broken) -> None:
        """Nothing more will come; what is here already can be read. The first failure counts, and none does behind the
        last piece."""
        if not self._whole:
            self._broken = self._broken or broken
        self._arrived.set()

    async def read(self) -> bytes:
        """The next piece, b"" at the end and ever after. Raises Broken."""
        while not self._pieces:
            if self._whole:
                return b""
            if self._broken is not None:
                raise self._broken
            self._arrived.clear()
            await self._arrived.wait()
        piece = self._pieces.popleft()
        credit = self._flow.take(piece)
        if credit is not None:
            self._grant(credit)
        return piece
