"""Makes an exchange and queues a pool, plain or sticky, in steps that a running deployment does not notice.

Between any two steps a request reaches exactly one queue of a pool that was there before. One that reached none would
be lost, as the tap's copy keeps the broker from returning it; one that reached two would run twice. A queue that
several paths lead to gets a message once.
"""

import structlog

from rabbitbal.runtime.broker import Topologist
from rabbitbal.topology.settings import Settings
from rabbitbal.wire import topology

log = structlog.get_logger()


async def declare_pool(broker: Topologist, name: str, settings: Settings, *, sticky: bool) -> None:
    """Idempotent. Raises Different where an object has other arguments, and one of LOSSES."""
    queue = topology.pool(name, settings.pool_length, settings.pool_length_bytes)
    new = not await broker.exists(queue.name)
    await broker.exchange(topology.Exchange(topology.pool_exchange(name), "fanout"))
    if new:
        # Only then: an operator may have moved the binding since. Before the queue: a job that is interrupted here
        # finds the pool as new again.
        await broker.route(topology.request_key(name), name)
    await broker.queue(queue, settings.queue_type)
    own, tap = topology.pool_bindings(name)
    await broker.bind(tap)
    if sticky:
        await _stick(broker, name, own, settings)
    else:
        await _unstick(broker, name)
        await broker.bind(own)
    log.info("topology.pool", pool=name, new=new, sticky=sticky)


async def _stick(broker: Topologist, name: str, own: topology.Binding, settings: Settings) -> None:
    """Into partitions goes what has the header, and the rest into the pool's queue by another way."""
    for queue in topology.partitions(name, settings.pool_length, settings.pool_length_bytes):
        # A quorum queue takes a second exclusive consumer without a word (seen with RabbitMQ 4.0): no lease then.
        await broker.queue(queue, "classic")
    for exchange in topology.sticky_exchanges(name):
        await broker.exchange(exchange)
    await broker.bind(topology.Binding(own.queue, topology.unpinned_exchange(name), ""))
    await broker.connect_exchanges(topology.pool_exchange(name), topology.sticky_exchange(name))
    # The direct way goes before the first partition is bound: what has a partition would go both ways.
    await broker.unbind(own)
    for binding in topology.partition_bindings(name):
        await broker.bind(binding)


async def _unstick(broker: Topologist, name: str) -> None:
    """A sticky pool that is declared as a plain one: its partitions get nothing more. Their queues stay for what waits
    in them, and so does the way around them, for what is on it."""
    for binding in topology.partition_bindings(name):
        if not await broker.exists(binding.queue):
            return
        await broker.unbind(binding)
