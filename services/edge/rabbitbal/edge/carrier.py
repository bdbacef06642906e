"""The broker, as pending requests need it."""

import asyncio
from typing import Protocol

from rabbitbal.runtime.broker import Disconnected, Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind

RETRY_PERIOD = 0.1
# Bounds a message to a worker's own queue.
PIECE_TIMEOUT = 10.0


class Broker(Protocol):
    """Publishes, and says whether it can."""

    def up(self) -> bool:
        """Publishing works and replies are being consumed."""

    async def wait_up(self) -> None: ...

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict: ...


async def to_worker(broker: Broker, worker: str, envelope: Envelope, piece: bytes) -> None:
    """One message to a worker's own queue. Raises Disconnected where it cannot be known to have arrived."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PIECE_TIMEOUT
    while True:
        left = max(deadline - loop.time(), 0.001)
        verdict = await broker.publish(topology.STREAMS, worker, envelope, piece, timeout=left)
        if verdict is Verdict.ROUTED:
            return
        # A piece that was refused leaves a gap before those that follow it; a grant does not.
        lost = verdict is Verdict.UNROUTABLE or envelope.kind is Kind.BODY
        if lost or loop.time() >= deadline:
            raise Disconnected(f"the queue of {worker} is {verdict.value}", sent=False)
        await asyncio.sleep(RETRY_PERIOD)
