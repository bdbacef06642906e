"""After an upgrade: bytes both ways between a client and the upstream, until either has enough."""

import asyncio

from rabbitbal.runtime.frames import GOING_AWAY, Frames
from rabbitbal.worker.targets.contract import Answer, Body
from rabbitbal.worker.targets.network import Lost, Wire
from rabbitbal.worker.targets.pairing import end

# Seconds that the upstream has for its own end, once the client's has come or a Close frame was sent in its name.
CLOSING = 5.0


class Tunnel:
    """A WebSocket's. ``opening`` are the bytes that came right behind the upstream's 101."""

    def __init__(self, wire: Wire, opening: bytes, body: Body, answer: Answer) -> None:
        self._wire = wire
        self._opening = opening
        self._body = body
        self._answer = answer
        self._frames = Frames()
        self._leaving = asyncio.Event()
        self._told = asyncio.Event()
        self._writing = asyncio.Lock()

    def leave(self) -> None:
        """Tell the client, between two frames of the upstream, that this end goes away. Its Close reaches the upstream
        as everything else does; what the upstream sends meanwhile is of no use any longer."""
        self._leaving.set()

    async def run(self) -> None:
        """Until the tunnel is through. Raises Lost where the upstream broke it off, and what body and answer raise."""
        down = asyncio.create_task(self._down(), name="tunnel down")
        up = asyncio.create_task(self._up(), name="tunnel up")
        farewell = asyncio.create_task(self._farewell(), name="tunnel farewell")
        tasks = (down, up, farewell)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if down not in done:
                for task in done:
                    task.result()
                await asyncio.wait((down,), timeout=CLOSING)
            if down.done():
                down.result()
        finally:
            await end(*tasks)

    async def _up(self) -> None:
        while piece := await self._body.read():
            try:
                await self._wire.send(piece)
            except Lost:
                # What comes down says why.
                await asyncio.Event().wait()
        self._wire.end()

    async def _down(self) -> None:
        data = self._opening or await self._wire.receive()
        while data:
            async with self._writing:
                await self._pass_on(data)
            data = await self._wire.receive()

    async def _pass_on(self, data: bytes) -> None:
        if self._told.is_set():
            return
        leaving = self._leaving.is_set()
        # At a boundary already, the Close frame is the next; else it waits for the end of the frame that has begun.
        if leaving and self._frames.between:
            await self._say_goodbye()
            return
        size = self._frames.follow(data, all_of_it=not leaving)
        await self._answer.write(data[:size])
        if leaving and self._frames.between:
            await self._say_goodbye()

    async def _farewell(self) -> None:
        """Returns when the client was told to go."""
        await self._leaving.wait()
        async with self._writing:
            if self._frames.between:
                await self._say_goodbye()
        await self._told.wait()

    async def _say_goodbye(self) -> None:
        if self._told.is_set():
            return
        self._told.set()
        # Nothing may follow a Close frame of the upstream's own.
        if not self._frames.closed:
            await self._answer.write(GOING_AWAY)
