"""The worker as a service: starts the application, joins its pools, and on the way out finishes what it has."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import structlog

from rabbitbal.runtime import logs
from rabbitbal.runtime.broker import Server
from rabbitbal.runtime.lifecycle import Stop, instance_name, keep_ready_file
from rabbitbal.runtime.settings import SettingsError
from rabbitbal.worker.broker import WorkerBroker
from rabbitbal.worker.figures import Figures
from rabbitbal.worker.orders import Orders
from rabbitbal.worker.runner import Runner
from rabbitbal.worker.settings import Settings
from rabbitbal.worker.targets import TargetError, load_target

log = structlog.get_logger()

# Seconds that cancelled work gets to end by itself when the stop is insisted on.
LAST_WORDS = 1.0


async def serve(settings: Settings, stop: Stop) -> None:
    """Until ``stop`` is asked for and what runs is answered, or it is insisted on and what runs is handed back."""
    worker_id = settings.worker_id or instance_name()
    # The application may want to say who it is.
    os.environ["RABBITBAL_WORKER_ID"] = worker_id
    logs.configure("worker", worker_id, settings.log_level)
    memberships = settings.memberships()
    try:
        target = load_target(
            settings.app or None,
            settings.app_dir,
            settings.upstream or None,
            sum(membership.slots for membership in memberships),
            kind=settings.app_kind,
            streams=settings.streams,
            websocket_limit=settings.websocket_limit,
        )
        await target.start()
    except TargetError as error:
        raise SettingsError(str(error)) from error

    broker = WorkerBroker(Server(settings.broker_url, settings.broker_password_file), worker_id, memberships)
    runner = Runner(worker_id, broker, target, claim_after=settings.claim_after, streams=settings.streams)
    orders = Orders(worker_id, broker, broker.pools, runner)
    figures = Figures(worker_id, broker, runner, memberships, lambda: broker.pools.away)
    broker.pools.handle, broker.told, broker.ordered = runner.handle, runner.told, orders.give
    try:
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(figures.run())
            background = [
                group.create_task(broker.run_publisher()),
                group.create_task(broker.run_consumer()),
                group.create_task(runner.probe()),
                group.create_task(orders.run()),
                telling,
                group.create_task(keep_ready_file(lambda: broker.ready() and not stop.asked.is_set())),
            ]
            await stop.asked.wait()
            log.info("worker.draining", running=runner.running)
            orders.close()
            await broker.pools.leave()
            target.drain()
            runner.drain(settings.drain)
            await _first(runner.idle(), stop.insisted.wait())
            if stop.insisted.is_set():
                broker.pools.dismiss()
                await runner.give_up()
                await _first(runner.idle(), asyncio.sleep(LAST_WORDS))
                if runner.running:
                    # A thread of the application cannot be stopped; its request is somebody else's already.
                    log.warning("worker.abandoned", running=runner.running)
                    os._exit(1)
            telling.cancel()
            await figures.leave()
            for task in background:
                task.cancel()
    finally:
        await target.stop()
    log.info("worker.stopped", most_running=runner.most_running)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
