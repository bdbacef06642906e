"""Publishing with patience: a broker that is away, or a queue that is full, is tried again for a while."""

import asyncio
from typing import Protocol

import structlog

from rabbitbal.runtime.broker import Disconnected, Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope

log = structlog.get_logger()

PUBLISH_TIMEOUT = 10.0
RETRY_PERIOD = 0.2
# How long a piece of a stream is kept for a broker or an edge that takes nothing.
PIECE_GRACE = 30.0


class Broker(Protocol):
    """What the worker's runs need of the broker."""

    @property
    def since(self) -> float:
        """Seconds since the Unix epoch: what edges told this worker before was not heard."""

    async def wait_up(self) -> None: ...

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict: ...


async def post(
    broker: Broker, exchange: str, key: str, message: Envelope, payload: bytes = b"", *, grace: float
) -> Verdict | None:
    """Publish, again and again within the grace: ROUTED, UNROUTABLE, or None. It may arrive more than once."""
    try:
        async with asyncio.timeout(grace):
            while True:
                await broker.wait_up()
                try:
                    verdict = await broker.publish(exchange, key, message, payload, timeout=PUBLISH_TIMEOUT)
                    if verdict is not Verdict.REJECTED:
                        return verdict
                except Disconnected:
                    pass
                await asyncio.sleep(RETRY_PERIOD)
    except TimeoutError:
        log.warning("worker.unsent", kind=message.kind.value, id=message.correlation_id)
        return None


class PiecePost:
    """Publishes the pieces of one body to an edge: several may be under way, each arrives once, none overtakes another.

    So a piece is tried again only while that can be kept: if it certainly did not arrive, and none behind it has left.
    """

    def __init__(self, broker: Broker, edge: str) -> None:
        self._broker = broker
        self._key = topology.body_key(edge)
        self._begun = 0
        # Held by a piece that is tried again: those behind it wait.
        self._order = asyncio.Lock()

    async def publish(self, message: Envelope, payload: bytes) -> Verdict:
        """ROUTED or UNROUTABLE. Raises Disconnected where the piece, and with it the body, is lost."""
        sequence = message.sequence or 0
        async with self._order:
            self._begun = sequence
        if (verdict := await self._try(message, payload)) is not None:
            return verdict
        if self._begun == sequence:
            async with self._order:
                try:
                    async with asyncio.timeout(PIECE_GRACE):
                        while (verdict := await self._again(message, payload)) is None:
                            pass
                    return verdict
                except TimeoutError:
                    pass
        raise Disconnected("the broker did not take a piece", sent=False)

    async def _again(self, message: Envelope, payload: bytes) -> Verdict | None:
        await asyncio.sleep(RETRY_PERIOD)
        await self._broker.wait_up()
        return await self._try(message, payload)

    async def _try(self, message: Envelope, payload: bytes) -> Verdict | None:
        """None where the broker certainly did not take it."""
        try:
            verdict = await self._broker.publish(topology.RESPONSES, self._key, message, payload, timeout=PIECE_GRACE)
        except Disconnected as error:
            if error.sent:
                raise
            return None
        return None if verdict is Verdict.REJECTED else verdict
