"""What the edge has done since its start, told to the tap every few seconds (`rabbitbal.wire.figures`)."""

import asyncio
import contextlib
import time

from rabbitbal.edge.carrier import Broker
from rabbitbal.edge.pending import Pending
from rabbitbal.runtime.broker import Disconnected
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.figures import PERIOD, encode_figures

# Seconds for the last ones: an edge that leaves waits for nobody.
FAREWELL = 1.0


class Figures:
    """They go the way of the requests, by the same channel: what they count as opened is in the tap's queue before
    them. Those that are lost are not missed, as the next ones say all that they said."""

    def __init__(self, edge: str, broker: Broker, pending: Pending) -> None:
        self._edge = edge
        self._broker = broker
        self._pending = pending
        self._since = int(time.time() * 1000)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._broker.wait_up()
            await self._tell(PERIOD, leaving=False)
            await asyncio.sleep(PERIOD)

    async def leave(self) -> None:
        """Say that these are the last."""
        await self._tell(FAREWELL, leaving=True)

    async def _tell(self, patience: float, *, leaving: bool) -> None:
        payload = encode_figures(self._pending.figures(self._since, leaving=leaving))
        # The events of endings that it counts may not have left yet; their tasks run now.
        await asyncio.sleep(0)
        message = Envelope(Kind.FIGURES, "figures", self._edge, sent=int(time.time() * 1000))
        key = topology.figures_key("edge", self._edge)
        with contextlib.suppress(Disconnected):
            await self._broker.publish(topology.EVENTS, key, message, payload, timeout=patience)
