"""The slots of a sticky pool, which its queue and its partitions share: a delivery may have to wait for one here.

The broker counts what each consumer has in hand, and not what several have together. So a worker may hold more of such
a pool than it runs. What waits here has not been started.
"""

import asyncio
from collections import deque


class Slots:
    """Taken and freed in the order of asking."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._line: deque[asyncio.Future[bool]] = deque()

    async def take(self, waiting: set[asyncio.Future[bool]]) -> bool:
        """When there is one. False if the wait was ended by whoever has it in ``waiting``."""
        if self._free:
            self._free -= 1
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        waiting.add(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.free()
            raise
        finally:
            waiting.discard(turn)

    def free(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._free += 1


class Turn:
    """One delivery's way to a slot and back. It is freed once, by whoever is first: the ack, or the end of the work."""

    def __init__(self, intake: "Intake") -> None:
        self._intake = intake
        self._taken = False

    async def take(self) -> bool:
        """False where the delivery is to be given back instead of run."""
        self._taken = await self._intake.admit()
        return self._taken

    def free(self) -> None:
        if self._taken:
            self._taken = False
            self._intake.slots.free()


class Intake:
    """What one consumer brings. When it is closed, what waits for a slot is given back."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self._closed = False
        self._waiting: set[asyncio.Future[bool]] = set()

    async def admit(self) -> bool:
        return not self._closed and await self.slots.take(self._waiting)

    def close(self) -> None:
        self._closed = True
        for turn in list(self._waiting):
            if not turn.done():
                turn.set_result(False)
