"""What a target does when its request is cancelled and the application cannot stop at once."""

import asyncio
from typing import Any

# Seconds that an application which was told to stop has to do so by itself.
GRACE = 0.05


async def outlast(work: "asyncio.Future[Any]") -> None:
    """Wait until the work is done, however often the caller is cancelled meanwhile.

    The deadline cancels a request in the worker, and the edge, whose clock says the same, sends a cancel as well. The
    second must not free the slot while the application still runs.
    """
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError:
            continue


async def stop(work: "asyncio.Future[Any]") -> None:
    """Cancel the work when the grace is over, and wait until it is done. Then a cancel of the caller counts."""
    timer = asyncio.get_running_loop().call_later(GRACE, work.cancel)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError as error:
            cancelled = error
    timer.cancel()
    if cancelled is not None:
        raise cancelled
