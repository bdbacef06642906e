"""The tap as a service: consumes its own bounded queue; writes the access log, comparisons and notices."""

import asyncio
import time

import structlog

from rabbitbal.runtime import logs
from rabbitbal.runtime.broker import Delivery, Link, Server, Session, consume
from rabbitbal.runtime.lifecycle import Stop, instance_name, keep_ready_file
from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.comparison import Comparison
from rabbitbal.tap.notices import notice
from rabbitbal.tap.settings import Settings
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.errors import WireError

log = structlog.get_logger()

# Requests whose shadows are compared at a time, and the seconds that an answer waits for the one that it is compared
# with: a request may last longer, but few that are worth a comparison do.
GROUPS = 10_000
AGE = 600.0


async def serve(settings: Settings, stop: Stop) -> None:
    """Until ``stop`` is asked for."""
    tap_id = instance_name()
    logs.configure("tap", tap_id, settings.log_level)
    access = AccessLog(settings.open_limit)
    comparison = Comparison(GROUPS, AGE)

    async def received(delivery: Delivery) -> None:
        try:
            write(delivery)
        except WireError as error:
            log.warning("tap.bad_message", error=str(error))
        await delivery.ack()

    def write(delivery: Delivery) -> None:
        envelope = delivery.envelope()
        if envelope.kind is Kind.NOTICE:
            event, fields = notice(delivery.body)
            # The broker has checked the user, where there is one. The sender's name is what it calls itself.
            log.info(event, **fields, sender=envelope.app_id[:100], user=delivery.user_id)
            return
        line = access.see(envelope, delivery.body)
        if line is None:
            return
        log.info("access", **line)
        for compared in comparison.see(line, time.monotonic()):
            log.info("shadow.compared", **compared)

    async def setup(session: Session) -> None:
        channel = await session.channel(prefetch=settings.tap_prefetch)
        await consume(channel, topology.TAP_LOG, received)

    link = Link(tap_id, Server(settings.broker_url, settings.broker_password_file), setup)
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(link.run()),
            group.create_task(keep_ready_file(link.up.is_set)),
        ]
        await stop.asked.wait()
        for task in background:
            task.cancel()
    log.info("tap.stopped", open=len(access), forgotten=access.forgotten, uncompared=comparison.forgotten)
