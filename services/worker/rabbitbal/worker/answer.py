"""The response to one request: checked by `Framing`, and sent whole or, where it takes longer, in pieces.

What an application does at once leaves in one message, with its length. A response that is not finished within
`GATHER` leaves as a head, and its body follows as it is written: at each turn of the pump all that is there, under the
credit that the edge gives. Not more than a chunk waits here: then `write` waits.

Where nobody takes the response any longer, whoever writes gets a ConnectionError. It is an OSError, as PEP 3333
applications and the ASGI specification ("send ... should raise a server-specific subclass of OSError") expect it.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from rabbitbal.runtime.streams import Outlet
from rabbitbal.wire import flow
from rabbitbal.wire.fields import Field
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.reasons import Reason
from rabbitbal.worker.framing import Framing
from rabbitbal.worker.targets.contract import BadResponse

# Seconds from the head to the first message, and turns of the loop besides, as on a busy loop the time alone says
# nothing. Frameworks that hand a response through layers of tasks have it together in less; a stream starts that much
# later.
GATHER = 0.002
GATHER_TURNS = 4


class Way(Protocol):
    """How an answer leaves. Both return when the broker has the message, and raise ConnectionError where it never will.

    Whoever cannot be told anything more about this response must also be told to stop it.
    """

    async def head(self, response: Response, *, more: bool) -> None: ...

    async def piece(self, sequence: int, payload: bytes, more: bool, reason: Reason | None) -> None: ...


class StreamedAnswer:
    """An `Answer`. Its pump is a task that begins with the first message and ends with the last one's confirm."""

    def __init__(self, request: Request, way: Way, credit: int) -> None:
        self._framing = Framing(request)
        self._way = way
        self._outlet = Outlet(self._piece, credit)
        self._lost = False
        self._buffer = bytearray()
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()
        self._timer: asyncio.Handle | None = None
        self._pump: asyncio.Task[None] | None = None
        self._finished = False
        self._reason: Reason | None = None
        self._gone = False
        self.left = False
        """The first message is on its way: it cannot be replaced by another."""

    @property
    def started(self) -> bool:
        return self._framing.status != 0

    @property
    def finished(self) -> bool:
        return self._finished

    async def start(self, status: int, fields: Iterable[Field]) -> None:
        self._check_open()
        self._framing.start(status, fields)
        if self._framing.upgraded:
            self._go()
        elif not self._framing.bodiless:
            # A response without a body has nothing to stream. Most are complete before the first turn.
            self._timer = asyncio.get_running_loop().call_soon(self._unfinished)

    async def write(self, chunk: bytes) -> None:
        self._check_open()
        self._framing.count(len(chunk))
        if self._framing.bodiless or not chunk:
            return
        # The wait is for what was written before. So a single chunk of any size and the end right behind it are one
        # response whose length is known.
        while len(self._buffer) >= flow.CHUNK:
            self._go()
            self._taken.clear()
            await self._taken.wait()
            self._check_open()
        self._buffer += chunk
        self._filled.set()

    async def finish(self) -> None:
        self._check_open()
        self._framing.finish()
        self._finished = True
        self._go()
        await self.sent()

    async def sent(self) -> None:
        """Until the broker has all of what was finished. Raises ConnectionError where it never will."""
        assert self._pump is not None  # noqa: S101 - nothing else was sent
        if not self._pump.done():
            # Not awaited directly: cancelling one who waits must not cut off a message half way.
            await asyncio.wait((self._pump,))
        if self._pump.cancelled():
            raise ConnectionResetError("nobody takes the response any longer")
        self._pump.result()

    # --- for the run

    def grant(self, credit: int) -> None:
        """The edge takes so much in all."""
        self._outlet.grant(credit)

    def fail(self, reason: Reason) -> bool:
        """The application failed. False where nothing has left: then something else can be answered.

        Else what it wrote before is still sent, and the stream's end says why it is short; `sent` waits for that.
        """
        if self._timer is not None:
            self._timer.cancel()
        if not self.left:
            self.abandon()
            return False
        if not self._finished:
            self._finished = True
            self._reason = reason
            self._filled.set()
        return True

    def silence(self) -> None:
        """Take nothing more from the application; who writes is told."""
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        if self._pump is not None:
            self._pump.cancel()
        self._taken.set()

    def abandon(self) -> None:
        """Nobody takes it any longer: also what was written goes no further."""
        self.silence()
        self._outlet.abandon()

    async def break_off(self, reason: Reason) -> None:
        """End a stream whose head the edge has. Raises ConnectionError where the edge cannot be told."""
        self.silence()
        if self._lost:
            # Else the end would wait for that piece, and share its fate.
            self._outlet.abandon()
        await self._outlet.end(reason)

    # --- the pump

    def _check_open(self) -> None:
        if self._gone:
            raise ConnectionResetError("nobody takes the response any longer")
        if self._finished:
            raise BadResponse("the response was complete already")

    def _unfinished(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(GATHER, self._idle, GATHER_TURNS)

    def _idle(self, turns: int) -> None:
        if turns:
            self._timer = asyncio.get_running_loop().call_soon(self._idle, turns - 1)
        else:
            self._go()

    def _go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._filled.set()
        if self._pump is None:
            self._pump = asyncio.create_task(self._send(), name="answer")
            self._pump.add_done_callback(self._ended)

    def _ended(self, pump: "asyncio.Task[None]") -> None:
        if pump.cancelled() or pump.exception() is not None:
            self._gone = True
        self._taken.set()

    async def _send(self) -> None:
        self.left = True
        complete = self._finished
        framing = self._framing
        first = self._take(flow.INLINE)
        more = bool(self._buffer) or not complete or framing.upgraded
        await self._way.head(Response(framing.status, framing.fields(complete=complete), first), more=more)
        if not more:
            return
        while True:
            while piece := self._take(flow.CHUNK):
                await self._outlet.write(piece)
            if self._finished:
                break
            self._filled.clear()
            await self._filled.wait()
        await self._outlet.end(self._reason)

    async def _piece(self, sequence: int, payload: bytes, more: bool, reason: Reason | None) -> None:
        try:
            await self._way.piece(sequence, payload, more, reason)
        except ConnectionError:
            self._lost = True
            raise

    def _take(self, most: int) -> bytes:
        with memoryview(self._buffer) as view:
            piece = bytes(view[:most])
        del self._buffer[:most]
        self._taken.set()
        return piece
