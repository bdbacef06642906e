"""What the operator tells a worker: to take no more requests, and to take them again; and what it says to that."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import structlog

from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.worker.pools import Pools
from rabbitbal.worker.post import PUBLISH_TIMEOUT, Broker, post
from rabbitbal.worker.runner import Runner

log = structlog.get_logger()

ROLE = "worker"


class Orders:
    """The newest order counts. A drained worker finishes what it has, stays connected, and says when it is idle."""

    def __init__(self, worker: str, broker: Broker, pools: Pools, runner: Runner) -> None:
        self._worker = worker
        self._broker = broker
        self._pools = pools
        self._runner = runner
        self._newest: Kind | None = None
        self._came = asyncio.Event()
        self._closed = False

    def give(self, order: Kind) -> None:
        log.info("worker.ordered", order=order.value, running=self._runner.running)
        self._newest = order
        self._came.set()

    def close(self) -> None:
        """The worker stops: no order brings it back."""
        self._closed = True

    async def run(self) -> None:
        """Carry orders out, until cancelled."""
        while True:
            await self._came.wait()
            self._came.clear()
            if self._closed:
                return
            if self._newest is Kind.RESUME:
                await self._pools.come_back()
                await self._tell("worker.resumed", running=self._runner.running)
            else:
                await self._pools.leave()
                if await self._idle():
                    await self._tell("worker.drained", running=0)

    async def _idle(self) -> bool:
        """When nothing runs; False when another order came first."""
        waits = [asyncio.ensure_future(self._runner.idle()), asyncio.ensure_future(self._came.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self._came.is_set()

    async def _tell(self, event: str, **more: Any) -> None:
        when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        payload = json.dumps({"event": event, "when": when, "who": self._worker, **more}).encode()
        message = Envelope(kind=Kind.NOTICE, correlation_id="notice", app_id=self._worker)
        key = topology.notice_key(ROLE, self._worker)
        log.info(event, **more)
        await post(self._broker, topology.EVENTS, key, message, payload, grace=PUBLISH_TIMEOUT)
