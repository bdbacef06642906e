"""Declares exchanges, queues and the bindings that never move; binds the default pool when it is new."""

import asyncio

import structlog

from rabbitbal.runtime.broker import LOSSES, Server, Topologist
from rabbitbal.topology.settings import Settings
from rabbitbal.wire import topology

log = structlog.get_logger()

PERIOD = 0.5


async def declare(settings: Settings) -> None:
    """Until everything is there. Raises the last error when the broker cannot be reached within the bound."""
    server = Server(settings.broker_url, settings.broker_password_file)
    async with asyncio.timeout(settings.declare_timeout):
        while True:
            try:
                await _declare(Topologist(server), settings)
                return
            except (OSError, TimeoutError) as error:
                log.info("topology.waiting", error=str(error))
                await asyncio.sleep(PERIOD)
            except LOSSES as error:
                log.error("topology.refused", error=str(error))
                raise


async def _declare(broker: Topologist, settings: Settings) -> None:
    async with broker:
        for exchange in topology.EXCHANGES:
            await broker.exchange(exchange)
        for queue in (*topology.TAP_QUEUES, *topology.DEAD_QUEUES):
            await broker.queue(queue, settings.queue_type)
        for binding in topology.FIXED_BINDINGS:
            await broker.bind(binding)
        for name in settings.pool_names():
            queue = topology.pool(name, settings.pool_length, settings.pool_length_bytes)
            new = not await broker.exists(queue.name)
            if new:
                await broker.queue(queue, settings.queue_type)
            await broker.exchange(topology.Exchange(topology.pool_exchange(name), "fanout"))
            for binding in topology.pool_bindings(name):
                await broker.bind(binding)
            # An operator may have moved the binding since; a second run of this job must not bring it back.
            if new and name == topology.DEFAULT_POOL:
                await broker.route(topology.request_key(topology.DEFAULT_ROUTE), name)
            log.info("topology.pool", pool=name, new=new)
    log.info("topology.declared")
