"""Between an application's thread and the loop: pieces of the response go one way, pieces of the request the other."""

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, TypeVar

from rabbitbal.wire.fields import Fields
from rabbitbal.worker.targets.contract import BadResponse

T = TypeVar("T")

# Pieces that have left the thread and were not written yet: one is sent while the application makes the next.
_AHEAD = 1


@dataclass(frozen=True, slots=True)
class Step:
    """``head``: the response begins, by this status and these fields. ``last``: it ends."""

    head: tuple[int, Fields] | None
    piece: bytes
    last: bool


class Crossing:
    """Of one request. ``put`` and ``run`` are for the thread and block it; all else is for the loop.

    PEP 3333, "Buffering and Streaming": a server may "use a different thread to ensure that the block continues to be
    transmitted while the application produces the next block".
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._steps: deque[Step] = deque()
        self._changed = asyncio.Event()
        self._room = threading.Semaphore(_AHEAD)
        self._reading: Future[Any] | None = None
        self._cut = False
        self._why = ""
        self.broken: Exception | None = None
        """What kept a piece of the request from the thread."""

    def put(self, step: Step) -> None:
        """Hand over a piece as soon as the one before was written; the last one at once, as nothing comes behind it.

        Raises ConnectionResetError once nobody takes it, BadResponse where an earlier one was refused.
        """
        if not step.last:
            self._room.acquire()
        self._check()
        self._steps.append(step)
        self._loop.call_soon_threadsafe(self._changed.set)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that the loop runs. Raises ConnectionResetError for whatever it raises."""
        if self._cut:
            work.close()
            raise self._gone()
        self._reading = reading = asyncio.run_coroutine_threadsafe(work, self._loop)
        # Either `cut` sees the future or this sees the cut.
        if self._cut:
            reading.cancel()
        try:
            return reading.result()
        except CancelledError:
            raise self._gone() from None
        except Exception as error:
            self.broken = error
            raise ConnectionResetError(f"the body of the request broke off: {error}") from error

    async def get(self, thread: "asyncio.Future[None]") -> Step | None:
        """The next step; None when the thread has ended and left none."""
        while not self._steps:
            if thread.done():
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._steps.popleft()

    def written(self) -> None:
        """The step was carried out: there is room for another."""
        self._room.release()

    def wake(self, _: object = None) -> None:
        """The thread has ended."""
        self._changed.set()

    def cut(self, error: BaseException | None = None) -> None:
        """Nobody takes pieces any longer, nor gives any: the thread is told when it next asks, also if it waits."""
        self._why = str(error) if isinstance(error, BadResponse) else ""
        self._cut = True
        if self._reading is not None:
            self._reading.cancel()
        self._room.release()

    def _check(self) -> None:
        if self._cut:
            # For whoever asks again.
            self._room.release()
            raise self._gone()

    def _gone(self) -> Exception:
        if self._why:
            return BadResponse(self._why)
        return ConnectionResetError("nobody waits for the response any longer")
