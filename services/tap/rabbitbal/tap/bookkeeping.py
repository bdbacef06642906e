"""What Prometheus is told of the books. They are in a database: they are asked now and then, not at each look."""

import asyncio
from collections.abc import Iterator
from typing import Any

import structlog
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy.exc import SQLAlchemyError

from rabbitbal.tap.ledger import queries
from rabbitbal.tap.ledger.books import Books
from rabbitbal.tap.ledger.database import Slow

log = structlog.get_logger()

PERIOD = 5.0


class Bookkeeping:
    """``collect`` tells of the newest balance that there is."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._balance: dict[str, Any] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self._balance = await self._books.database.ask(
                    lambda connection: queries.balance(connection, None, 1, check=False)
                )
            except (Slow, SQLAlchemyError) as error:
                # The books say by themselves that their database fails. Old figures would say that all is well.
                self._balance = None
                log.debug("ledger.unasked", error=type(error).__name__)
            await asyncio.sleep(PERIOD)

    def collect(self) -> Iterator[Metric]:
        state = self._books.state()
        yield CounterMetricFamily("rabbitbal_ledger_postings", "Postings that are in the books.", state["booked"])
        yield CounterMetricFamily(
            "rabbitbal_ledger_postings_given_up", "Postings that could not be booked.", state["given_up"]
        )
        yield GaugeMetricFamily("rabbitbal_ledger_down", "1: the books cannot be written.", int(state["down"]))
        balance = self._balance
        if balance is None:
            return
        entries = GaugeMetricFamily("rabbitbal_ledger_entries", "The sums of the books, by column.", labels=["column"])
        for column, value in balance["total"].items():
            if isinstance(value, int):
                entries.add_metric([column], value)
        yield entries
        gaps = GaugeMetricFamily(
            "rabbitbal_ledger_gaps", "Debits and credits that the tap has missed.", labels=["cause", "side"]
        )
        for cause, sides in balance["gaps"].items():
            for side, value in sides.items():
                gaps.add_metric([cause, side], value)
        yield gaps
