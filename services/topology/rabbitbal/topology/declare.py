"""Declares the shared exchanges and queues, and then the pools."""

import asyncio

import structlog

from rabbitbal.runtime.broker import LOSSES, Server, Topologist
from rabbitbal.topology.pools import declare_pool
from rabbitbal.topology.settings import Settings
from rabbitbal.wire import topology

log = structlog.get_logger()

PERIOD = 0.5


async def declare(settings: Settings) -> None:
    """Until everything is there. Raises Different where something is there that is not as asked for, and the last error
    when the broker cannot be reached within the bound."""
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
        for name, sticky in settings.pools().items():
            await declare_pool(broker, name, settings, sticky=sticky)
    log.info("topology.declared")
