"""The edge as a service: starts, serves until told to stop, finishes what is in flight, leaves."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import structlog
import uvicorn

from rabbitbal.edge import admin
from rabbitbal.edge.app import Edge
from rabbitbal.edge.broker import EdgeBroker
from rabbitbal.edge.copies import Copies
from rabbitbal.edge.figures import Figures
from rabbitbal.edge.news import News
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.protocol import EdgeProtocol
from rabbitbal.edge.settings import Settings
from rabbitbal.edge.spool import SpoolSpace
from rabbitbal.edge.suspects import Suspects
from rabbitbal.routes.document import RoutesError
from rabbitbal.routes.table import Table
from rabbitbal.routes.watch import RoutesFile
from rabbitbal.runtime import logs
from rabbitbal.runtime.broker import Server
from rabbitbal.runtime.lifecycle import Stop, instance_name, keep_ready_file
from rabbitbal.runtime.settings import SettingsError

log = structlog.get_logger()

# How long answers carry `Connection: close` before the listener goes: clients move their connections elsewhere.
FAREWELL = 1.0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's."""
        yield


async def serve(settings: Settings, stop: Stop) -> None:
    """Until ``stop`` is asked for and the requests in flight are answered, or it is insisted on."""
    edge_id = settings.edge_id or instance_name()
    logs.configure("edge", edge_id, settings.log_level)
    broker = EdgeBroker(Server(settings.broker_url, settings.broker_password_file), edge_id)
    pending = Pending(edge_id, broker, settings.max_pending, settings.buffer_limit)
    suspects = Suspects()
    broker.lost, broker.reply, broker.verdict = pending.broker_lost, pending.reply, suspects.hear
    spools = SpoolSpace(settings.spool_total, settings.spool_limit, settings.spool_dir)
    copies = Copies(pending, spools)
    news = News(broker.wait_up, pending.notice)
    figures = Figures(edge_id, broker, pending)
    routes = _routes(settings, news)

    server: uvicorn.Server

    def ready() -> bool:
        return broker.up() and server.started and not stop.asked.is_set()

    try:
        own: Any = admin.build(edge_id, settings, pending, routes, copies, ready)
        app = Edge(settings, pending, routes, copies, spools, suspects, own)
    except ValueError as error:
        raise SettingsError(f"RABBITBAL_TRUSTED_PROXIES: {error}") from error
    server = _server(settings, app)

    async with asyncio.TaskGroup() as group:
        telling = group.create_task(figures.run())
        background = [
            group.create_task(broker.run_publisher()),
            group.create_task(broker.run_consumer()),
            group.create_task(pending.prober.run()),
            group.create_task(routes.run()),
            group.create_task(news.run()),
            telling,
            group.create_task(keep_ready_file(ready)),
        ]
        serving = group.create_task(server.serve())
        await _first(serving, stop.asked)
        app.draining = True
        log.info("edge.draining", pending=len(pending))
        await _first(serving, stop.insisted, timeout=FAREWELL)
        server.should_exit = True
        # Answers are bounded by their deadlines; streams are not.
        await _first(serving, stop.insisted, timeout=max(settings.drain, _longest(settings, routes.table)))
        server.force_exit = not serving.done()
        await serving
        telling.cancel()
        await figures.leave()
        for task in background:
            task.cancel()
    log.info("edge.stopped")


def _routes(settings: Settings, news: News) -> RoutesFile:
    """The table to begin with. Raises SettingsError, as an edge without one would send every request astray."""
    routes = RoutesFile(settings.routes, news.tell)
    try:
        routes.start()
    except RoutesError as error:
        raise SettingsError(f"RABBITBAL_ROUTES: {error}") from error
    return routes


def _longest(settings: Settings, table: Table) -> float:
    """Seconds until the last request that comes in now has its answer."""
    return max([settings.timeout, *(route.policy.timeout or 0 for route in table.routes)])


def _server(settings: Settings, app: Edge) -> uvicorn.Server:
    EdgeProtocol.header_limit = settings.header_limit
    EdgeProtocol.target_limit = settings.target_limit
    return _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=EdgeProtocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            # Longer than nginx keeps an idle connection, so that it is nginx who closes (no race with a new request).
            timeout_keep_alive=75,
            backlog=4096,
        )
    )


async def _first(task: "asyncio.Task[None]", event: asyncio.Event, timeout: float | None = None) -> None:
    """Until the task is done or the event is set, at most ``timeout`` seconds."""
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, waiter}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
