"""The tap as a service: reads its own bounded queue, and shows each message to its parts."""

import asyncio
from typing import TYPE_CHECKING

import structlog
from fastapi import APIRouter

from rabbitbal.runtime import logs
from rabbitbal.runtime.broker import Link, Server
from rabbitbal.runtime.lifecycle import Stop, instance_name, keep_ready_file
from rabbitbal.tap import sinks, summaries, web
from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.bots.service import Bots
from rabbitbal.tap.comparison import Comparison
from rabbitbal.tap.dashboard import Dashboard
from rabbitbal.tap.fleet import Fleet
from rabbitbal.tap.journal import Journal
from rabbitbal.tap.ledger.api import router as ledger_router
from rabbitbal.tap.ledger.service import open_books
from rabbitbal.tap.monitoring import Monitoring
from rabbitbal.tap.observation import Part
from rabbitbal.tap.panels import Provider
from rabbitbal.tap.reader import Reader
from rabbitbal.tap.recorder import Recorder
from rabbitbal.tap.recorder import router as record_router
from rabbitbal.tap.redaction import Redactor
from rabbitbal.tap.settings import Settings
from rabbitbal.tap.traces import Traces

if TYPE_CHECKING:
    from rabbitbal.tap.otlp import Collector

log = structlog.get_logger()

# Requests whose shadows are compared at a time, and the seconds that an answer waits for the one that it is compared
# with: a request may last longer, but few that are worth a comparison do.
GROUPS = 10_000
AGE = 600.0


async def serve(settings: Settings, stop: Stop) -> None:
    """Until ``stop`` is asked for."""
    tap_id = instance_name()
    logs.configure("tap", tap_id, settings.log_level)
    redactor = Redactor(settings.redact)
    access = AccessLog(settings.open_limit, redactor)
    comparison = Comparison(GROUPS, AGE)
    access_sinks = sinks.build(settings, tap_id, asyncio.get_running_loop().call_later)
    journal = Journal(access, comparison, access_sinks)
    fleet = Fleet()
    parts: list[Part] = [journal, fleet]
    routers: list[APIRouter] = []
    # Panels of the page: what fills them, and the seconds after which that is old.
    panels: dict[str, tuple[Provider, float]] = {"fleet": (lambda: summaries.fleet(fleet), 1.0)}
    bots = Bots(settings, tap_id) if settings.bots else None
    if bots is not None:
        parts.append(bots.watcher)
        routers.append(bots.router())
        panels["suspects"] = bots.panel()

    recorder = Recorder(None if settings.record_unredacted else redactor)
    parts.append(recorder)
    routers.append(record_router(recorder))

    collector: Collector | None = None
    if settings.otlp_endpoint:
        # Not before it is wanted: it takes a second, and memory.
        from rabbitbal.tap import otlp

        collector = otlp.Collector(settings.otlp_endpoint, tap_id)
        traces = Traces(collector.take, settings.traces_limit, redactor)
        parts.append(traces)
        routers.append(otlp.router(traces, collector))

    books = open_books(settings, redactor, lambda: link.up.is_set())
    routers.append(ledger_router(books))
    if books is not None:
        parts.append(books)
        await books.prepare()
        panels["books"] = (lambda: summaries.books(books), 2.0)
        access.restore(await books.open_lines(settings.open_limit))

    broker = Server(settings.broker_url, settings.broker_password_file)
    monitoring = Monitoring(settings, tap_id, broker, fleet, books, lambda: (reader.seen, reader.bad, reader.defects))
    parts.append(monitoring.metrics)
    routers += monitoring.routers()
    panels |= monitoring.panels()
    dashboard = Dashboard(
        tap_id,
        settings.stories,
        panels,
        lambda: {
            "connected": link.up.is_set(),
            "seen": reader.seen,
            "bad": reader.bad,
            "defects": reader.defects,
            "forgotten": access.forgotten,
        },
    )
    parts += dashboard.parts
    routers += dashboard.routers()

    async def keep() -> None:
        journal.flush()
        if books is not None:
            await books.commit()

    reader = Reader(parts, settings.tap_prefetch, keep)
    link = Link(tap_id, broker, reader.consume)
    server = web.Server(
        web.build(routers, web.hosts(settings.dashboard_hosts)), settings.dashboard_host, settings.dashboard_port
    )
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        background = [
            group.create_task(link.run()),
            group.create_task(reader.run()),
            group.create_task(keep_ready_file(lambda: link.up.is_set() and server.started)),
        ]
        background.append(group.create_task(monitoring.run()))
        if books is not None:
            background.append(group.create_task(books.run()))
        if bots is not None:
            background.append(group.create_task(bots.run()))
        await stop.asked.wait()
        await reader.settle()
        dashboard.close()
        recorder.close()
        server.should_exit = True
        await serving
        for task in background:
            task.cancel()
    journal.flush()
    if books is not None:
        books.close()
    if collector is not None:
        collector.close()
    log.info(
        "tap.stopped",
        open=len(access),
        forgotten=access.forgotten,
        uncompared=comparison.forgotten,
        unwritten=access_sinks.lost,
    )
