"""Whether the edge that sent a request can hear the answer.

After a restart of the broker a worker may be back before an edge is. What it answers then is lost, with nobody knowing:
the edge's queue is not there yet, and the tap's copy keeps the broker from returning the message. So of requests that
are older than the worker's own connection it asks first: a probe goes by a key that the tap is not bound to.
"""

import asyncio
import time

from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.worker.post import PUBLISH_TIMEOUT, Broker, post

# Seconds behind the worker's own connection in which an edge comes back, if it does: it tries every two seconds.
PATIENCE = 5.0
PERIOD = 0.1
# Seconds that the clocks of edge and worker may differ.
CLOCKS = 2.0


class Hearing:
    def __init__(self, worker: str, broker: Broker) -> None:
        self._worker = worker
        self._broker = broker

    def certain(self, request: Envelope) -> bool:
        """It came over this connection or not long before, so its edge was there then."""
        return (request.sent or 0) / 1000 >= self._broker.since + CLOCKS

    async def there(self, edge: str) -> bool | None:
        """Whether the edge is there, now or a little later; None where the broker cannot be asked."""
        message = Envelope(kind=Kind.PROBE, correlation_id="probe", app_id=self._worker)
        key = topology.body_key(edge)
        while True:
            verdict = await post(self._broker, topology.RESPONSES, key, message, grace=PUBLISH_TIMEOUT)
            if verdict is not Verdict.UNROUTABLE:
                return None if verdict is None else True
            if time.time() >= self._broker.since + PATIENCE:
                return False
            await asyncio.sleep(PERIOD)
