"""Metrics and the autoscaler's figure, put together: what is counted, what is asked for, and how often."""

import asyncio
import time
from collections.abc import Callable

from fastapi import APIRouter

from rabbitbal.runtime.broker import Server
from rabbitbal.tap import autoscale, metrics, summaries
from rabbitbal.tap.autoscale import Autoscale
from rabbitbal.tap.bookkeeping import Bookkeeping
from rabbitbal.tap.depth import Depths, declared
from rabbitbal.tap.fleet import Fleet
from rabbitbal.tap.gauges import Gauges
from rabbitbal.tap.ledger.books import Books
from rabbitbal.tap.metrics import Metrics
from rabbitbal.tap.panels import Provider
from rabbitbal.tap.settings import Settings

PERIOD = 1.0


class Monitoring:
    """``metrics`` is a part of the tap; others add what they count by `Metrics.collect_from`. ``books`` is None where
    there is no ledger; ``counts`` gives the reader's messages seen, bad, and defects."""

    def __init__(
        self,
        settings: Settings,
        tap_id: str,
        server: Server,
        fleet: Fleet,
        books: Books | None,
        counts: Callable[[], tuple[int, int, int]],
    ) -> None:
        self._fleet = fleet
        self._depths = Depths(server, tap_id, declared(settings.pools_declared), fleet.pools)
        self._autoscale = Autoscale(settings.scale_utilisation, settings.scale_backlog)
        self._bookkeeping = None if books is None else Bookkeeping(books)
        self.metrics = Metrics()
        gauges = Gauges(fleet, self._depths, self._autoscale, self.metrics.lag, counts)
        self.metrics.collect_from(gauges.collect)
        if self._bookkeeping is not None:
            self.metrics.collect_from(self._bookkeeping.collect)

    def routers(self) -> list[APIRouter]:
        return [metrics.router(self.metrics), autoscale.router(self._autoscale)]

    def panels(self) -> dict[str, tuple[Provider, float]]:
        """Of the page."""
        return {
            "queues": (lambda: summaries.queues(self._depths), 1.0),
            "autoscale": (lambda: summaries.autoscale(self._autoscale), 2.0),
        }

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._depths.run())
            group.create_task(self._sample())
            if self._bookkeeping is not None:
                group.create_task(self._bookkeeping.run())

    async def _sample(self) -> None:
        while True:
            self._autoscale.sample(time.monotonic(), self._fleet.pools(), self._depths.ready)
            await asyncio.sleep(PERIOD)
