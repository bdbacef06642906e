"""The connections of somebody who calls a pool, and the queue for its answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from secrets import token_hex

from rabbitbal.operator.caller import Caller
from rabbitbal.operator.errors import Failed
from rabbitbal.runtime.broker import Delivery, Link, Publisher, Server, Session, consume, private_queue
from rabbitbal.wire import topology
from rabbitbal.wire.errors import WireError

CONNECT = 10.0


class Connection:
    """One connection publishes, the other consumes: the broker blocks only who publishes."""

    def __init__(self, server: Server, pool: str) -> None:
        self._name = topology.replayer(token_hex(6))
        self._publisher = Publisher(f"{self._name} publishes", server, lambda: self.caller.lost())
        self._consumer = Link(f"{self._name} consumes", server, self._consume, lambda: self.caller.lost())
        self.caller = Caller(self._name, pool, self._publisher.publish)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publisher.link.run())
            group.create_task(self._consumer.run())

    async def wait_up(self) -> None:
        await self._publisher.link.up.wait()
        await self._consumer.up.wait()

    async def _consume(self, session: Session) -> None:
        channel = await session.channel()
        queue = topology.edge_queue(self._name)
        keys = (topology.response_key(self._name), topology.body_key(self._name))
        await private_queue(channel, queue, topology.RESPONSES, keys, topology.PRIVATE_QUEUE_ARGUMENTS)
        # No acks: an answer that this process loses has nobody left to wait for it.
        await consume(channel, queue, self._received, no_ack=True)

    async def _received(self, delivery: Delivery) -> None:
        # What makes no sense fails its request where that can be known, and is nobody's else.
        with contextlib.suppress(WireError):
            self.caller.take(delivery.envelope(), delivery.body)


@contextlib.asynccontextmanager
async def calling(server: Server, pool: str) -> AsyncIterator[Caller]:
    """Raises Failed where the broker cannot be reached."""
    connection = Connection(server, pool)
    running = asyncio.ensure_future(connection.run())
    up = asyncio.ensure_future(connection.wait_up())
    try:
        await asyncio.wait((running, up), timeout=CONNECT, return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            why = f": {running.exception()}" if running.done() and not running.cancelled() else ""
            raise Failed(f"the broker cannot be reached{why}")
        yield connection.caller
        await connection.caller.settled()
    finally:
        up.cancel()
        running.cancel()
        await asyncio.wait((running, up))
