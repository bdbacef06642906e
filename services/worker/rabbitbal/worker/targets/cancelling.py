"""What a target does when its request is cancelled and the application cannot stop at once."""

import asyncio
from typing import Any


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
