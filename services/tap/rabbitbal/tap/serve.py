"""The tap as a service: reads its own bounded queue, and shows each message to its parts."""

import asyncio

import structlog
from fastapi import APIRouter

from rabbitbal.runtime import logs
from rabbitbal.runtime.broker import Link, Server
from rabbitbal.runtime.lifecycle import Stop, instance_name, keep_ready_file
from rabbitbal.tap import web
from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.comparison import Comparison
from rabbitbal.tap.journal import Journal
from rabbitbal.tap.observation import Part
from rabbitbal.tap.reader import Reader
from rabbitbal.tap.settings import Settings

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
    parts: list[Part] = [Journal(access, comparison)]
    routers: list[APIRouter] = []
    reader = Reader(parts, settings.tap_prefetch)
    link = Link(tap_id, Server(settings.broker_url, settings.broker_password_file), reader.consume)
    server = web.Server(web.build(routers), settings.dashboard_host, settings.dashboard_port)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        background = [
            group.create_task(link.run()),
            group.create_task(reader.run()),
            group.create_task(keep_ready_file(lambda: link.up.is_set() and server.started)),
        ]
        await stop.asked.wait()
        await reader.settle()
        server.should_exit = True
        await serving
        for task in background:
            task.cancel()
    log.info("tap.stopped", open=len(access), forgotten=access.forgotten, uncompared=comparison.forgotten)
