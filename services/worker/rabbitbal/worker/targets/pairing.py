"""Tasks that run side by side for one request, and end together."""

import asyncio
from typing import Any


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel those that still run and wait for them; what they raise is not looked at any more."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # taken note of, or the loop complains
