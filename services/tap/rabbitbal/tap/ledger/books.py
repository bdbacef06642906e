"""The books as a part of the tap: what it sees is booked batch by batch, before it is acknowledged.

While the database fails a batch waits for a while, and the tap's queue with it; then it is given up and counted, so
that the logs and the page go on. A database that fails never ends the tap.
"""

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from rabbitbal.runtime.settings import SettingsError
from rabbitbal.tap.ledger import edges, queries
from rabbitbal.tap.ledger.batch import MOST, Batch, Missed, Told, begun
from rabbitbal.tap.ledger.clock import Clock
from rabbitbal.tap.ledger.database import Database, Slow
from rabbitbal.tap.ledger.postings import edge_figures, postings
from rabbitbal.tap.ledger.retention import Retention
from rabbitbal.tap.observation import Observation
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Kind

log = structlog.get_logger()

# Seconds: between tries of a batch, doubled up to the most; between tries once a batch has been given up.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
RETRY = 5.0
# Seconds between looks for edges that are gone.
TICK = 1.0
# Seconds after which a trouble of the tap no longer explains what is missing.
EXPLAINS = 60

TAP_DOWN = "tap-down"
OVERFLOW = "overflow"
LOST = "lost"
"""Neither: a broker that restarted, or an edge whose connection broke."""


class Books:
    """``up`` tells whether the tap is connected to the broker."""

    def __init__(
        self, database: Database, redactor: Redactor, up: Callable[[], bool], patience: float, retention: Retention
    ) -> None:
        self.database = database
        self._redactor = redactor
        self._up = up
        self._patience = patience
        self._retention = retention
        self._clock = Clock()
        self._clock.broken(int(time.time() * 1000))
        self._was_up = False
        self._batch = Batch()
        self._missed = Missed()
        self._begun: int | None = None
        self._down_since: float | None = None
        self._given_up = False
        self._next_try = 0.0
        self._committing = asyncio.Lock()
        self.booked = 0
        """Postings that are in the database."""
        self.given_up = 0
        """Postings that are not, and never will be."""

    # --- what the tap sees

    def see(self, seen: Observation) -> None:
        now = int(seen.at * 1000)
        self._clock.read(now, seen.envelope.sent)
        if self._batch.size >= MOST:
            self._give_up("too much waits")
        if seen.envelope.kind is Kind.FIGURES:
            figures = edge_figures(seen)
            if figures is not None:
                self._clock.read(now, figures.at)
                self._batch.tell(Told(seen.envelope.app_id[:64], figures, self._cause(now)), self._clock.newest)
            return
        for posting in postings(seen, self._redactor):
            self._batch.add(posting, self._clock.newest)

    def _cause(self, now: int) -> str:
        if now - self._clock.broken_at < EXPLAINS * 1000:
            return TAP_DOWN
        return OVERFLOW if now - self._clock.late_at < EXPLAINS * 1000 else LOST

    # --- what is kept

    async def commit(self) -> None:
        """Write what was seen until now. Returns when it is written, or given up."""
        # The tap stops while a batch is being written: what is behind it waits for it.
        async with self._committing:
            await self._commit()

    async def _commit(self) -> None:
        if not self._batch.size:
            return
        deadline, pause = time.monotonic() + self._patience, FIRST_PAUSE
        while self._batch.size:
            if self._given_up and time.monotonic() < self._next_try:
                self._give_up("the database is away still")
                return
            batch, self._batch = self._batch, Batch()
            missed, self._missed = self._missed, Missed()
            try:
                await self.database.write(functools.partial(self._write, batch, missed))
            except (SQLAlchemyError, SettingsError) as error:
                # What came meanwhile is behind it.
                self._batch = _joined(batch, self._batch)
                self._missed.add(missed, missed.since or 0)
                self._failed(error)
                if self._given_up or time.monotonic() + pause > deadline:
                    self._give_up("the database does not come back")
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            except Exception:
                # A defect of ours, and the same messages would come again for ever: what they were is a gap.
                log.exception("ledger.defect")
                self._missed.add(missed, missed.since or 0)
                self._lose(batch)
                return
            else:
                self.booked += batch.size
                self._succeeded()
                # What came meanwhile is acknowledged later.
                return

    def _write(self, batch: Batch, missed: Missed, connection: Connection) -> None:
        now = int(time.time() * 1000)
        if self._begun is None:
            self._begun = begun(connection)
        if missed:
            missed.write(connection, now)
        batch.write(connection, self._begun, now)

    def _failed(self, error: Exception) -> None:
        if self._down_since is None:
            self._down_since = time.monotonic()
            log.warning("ledger.down", error=_said(error), patience=self._patience)

    def _succeeded(self) -> None:
        if self._down_since is not None:
            log.warning("ledger.back", seconds=round(time.monotonic() - self._down_since, 1), given_up=self.given_up)
        self._down_since, self._given_up = None, False

    def _give_up(self, why: str) -> None:
        batch, self._batch = self._batch, Batch()
        if not self._given_up:
            log.error("ledger.given_up", why=why)
        if time.monotonic() >= self._next_try:
            self._next_try = time.monotonic() + RETRY
        self._given_up = True
        self._lose(batch)

    def _lose(self, batch: Batch) -> None:
        self.given_up += batch.size
        self._missed.add(batch.missed(), int(time.time() * 1000))

    # --- what is done besides

    async def prepare(self) -> None:
        """Make the tables. Raises SettingsError for a database that a newer tap has made; one that cannot be reached
        is waited for."""
        try:
            self._begun = await self.database.write(begun)
        except SQLAlchemyError as error:
            self._failed(error)

    async def run(self) -> None:
        """Look for edges that are gone, and delete what is too old or too much, until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.tick()
                if self._down_since is None:
                    await self._retention.run(self.database)
            except (SQLAlchemyError, SettingsError) as error:
                self._failed(error)

    async def tick(self) -> None:
        now, up = int(time.time() * 1000), self._up()
        if up and not self._was_up:
            self._clock.broken(now)
        self._was_up = up
        self._clock.tick(now, drained=up and not self._batch.size and self._down_since is None)
        if self._down_since is None:
            await self.database.write(lambda connection: edges.write_off_gone(connection, self._clock, now))

    async def open_lines(self, limit: int) -> list[queries.OpenLine]:
        """Requests whose ending a tap before this one has not seen, oldest first, for the access log."""
        try:
            return await self.database.ask(lambda connection: queries.open_lines(connection, limit))
        except (SQLAlchemyError, Slow) as error:
            log.warning("ledger.unread", error=_said(error))
            return []

    def state(self) -> dict[str, Any]:
        """For the page and for metrics."""
        return {"booked": self.booked, "given_up": self.given_up, "down": self._down_since is not None}

    def close(self) -> None:
        self.database.close()


def _joined(first: Batch, second: Batch) -> Batch:
    """In the order in which they came."""
    if not second.size:
        return first
    if second.segments:
        segment, told, heard = second.segments[0]
        first.open.join(segment)
        joined = Batch([*first.segments, (first.open, told, heard), *second.segments[1:]], second.open, second.heard)
    else:
        first.open.join(second.open)
        joined = Batch(first.segments, first.open, second.heard)
    joined.size = first.size + second.size
    return joined


def _said(error: Exception) -> str:
    """One line, without the statement and its values: they are clients' requests."""
    origin = getattr(error, "orig", None) or error
    return (str(origin).splitlines() or [type(error).__name__])[0][:300]
