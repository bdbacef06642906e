"""Is the peer of a long stream still there? The broker knows: the peer's queue is exclusive and goes away with it.

A stream may rest for hours with no message that could fail to arrive, so those who have one ask: a `probe` to the
peer's queue that the broker returns says that the queue is gone. The second in a row counts, as a peer that lost its
connection for a moment declares its queue anew.
"""

import asyncio
from collections.abc import Awaitable, Callable

from rabbitbal.runtime.broker import Disconnected, Verdict

PERIOD = 1.0
RETURNS = 2


class Prober:
    """Probes the watched peers, ``period`` seconds apart. ``probe`` publishes one; ``gone`` hears who does not answer.

    A peer that is gone and still watched is told of again, every two periods.
    """

    def __init__(
        self, probe: Callable[[str], Awaitable[Verdict]], gone: Callable[[str], None], period: float = PERIOD
    ) -> None:
        self._probe = probe
        self._gone = gone
        self._period = period
        self._watches: dict[str, int] = {}
        self._returned: dict[str, int] = {}
        self._needed = asyncio.Event()

    def watch(self, peer: str) -> None:
        """As often as there are streams; each watch is one to forget."""
        self._watches[peer] = self._watches.get(peer, 0) + 1
        self._needed.set()

    def forget(self, peer: str) -> None:
        self._watches[peer] -= 1
        if not self._watches[peer]:
            del self._watches[peer]
            self._returned.pop(peer, None)
        if not self._watches:
            self._needed.clear()

    async def run(self) -> None:
        """Until cancelled. Sends nothing while nobody is watched."""
        while True:
            await self._needed.wait()
            await asyncio.sleep(self._period)
            await asyncio.gather(*(self._ask(peer) for peer in list(self._watches)))

    async def _ask(self, peer: str) -> None:
        try:
            verdict = await self._probe(peer)
        except Disconnected:
            # It says something of us, nothing of the peer.
            return
        if peer not in self._watches:
            return
        if verdict is not Verdict.UNROUTABLE:
            self._returned.pop(peer, None)
            return
        self._returned[peer] = self._returned.get(peer, 0) + 1
        if self._returned[peer] >= RETURNS:
            del self._returned[peer]
            self._gone(peer)
