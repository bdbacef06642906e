"""Several copies, and the first good answer."""

import asyncio

from rabbitbal.edge.copies.group import Copy, Group, good
from rabbitbal.edge.ticket import Ending


async def first_good(group: Group, copies: list[Copy]) -> Ending:
    """The first good answer; if all are bad, an application's before one of ours, and the earlier before the later.

    The caller ends the group with it.
    """
    best: Ending | None = None
    waiting = {copy.task for copy in copies}
    while waiting:
        for copy in await group.first(waiting):
            waiting.discard(copy.task)
            ending = copy.task.result()
            if good(ending):
                return ending
            if best is None or (best.reason is not None and ending.reason is None):
                best = ending
    assert best is not None  # noqa: S101 - there was a copy
    return best


def tasks(copies: list[Copy]) -> "set[asyncio.Task[Ending]]":
    return {copy.task for copy in copies}
