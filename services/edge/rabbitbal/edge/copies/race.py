"""Several copies, and the first good answer."""

import asyncio

from rabbitbal.edge.copies.group import Copy, better, good
from rabbitbal.edge.ticket import Ending


async def first_good(copies: list[Copy]) -> Ending:
    """If none is good, the best of the bad. The caller ends the group with it.

    Of answers that are there at the same time, the one whose key is named first in the table.
    """
    best: Ending | None = None
    waiting = {copy.task for copy in copies}
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for ending in [copy.task.result() for copy in copies if copy.task in done]:
            best = ending if best is None else better(best, ending)
        if best is not None and good(best):
            return best
    assert best is not None  # noqa: S101 - there was a copy
    return best
