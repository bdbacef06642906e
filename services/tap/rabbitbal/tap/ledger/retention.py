"""What the books forget: ended requests that are older than a time, and the oldest once there is too much.

In small portions, each a transaction of its own, so that no commit waits for long. The accounts are running sums: they
keep what is deleted; `carried` tells how much of them is no longer in the tables.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, text, true

from rabbitbal.tap.ledger import schema
from rabbitbal.tap.ledger.booking import add, upsert
from rabbitbal.tap.ledger.database import Database
from rabbitbal.tap.ledger.entry import COLUMNS, DUPLICATE, FIRST, LATE, UNMATCHED, WRITTEN_OFF, Key

log = structlog.get_logger()

# Seconds from one look to the next, and between two portions.
PERIOD = 10.0
PAUSE = 0.05
PORTION = 500
MOST_PORTIONS = 100
# Of what is too large so much is deleted at a time: a database that is always full is not looked at all the time.
SHARE = 0.1
# Accounts of strangers, and of workers that were started and stopped for years: those beyond are one.
MOST_ACCOUNTS = 100_000
OTHERS = "(others)"
# Pages that are given back to the file system at a time.
_PAGES = 2_000


class Retention:
    """``age`` in seconds, ``size`` in bytes."""

    def __init__(self, age: float, size: int) -> None:
        self._age = age
        self._size = size
        self._next = 0.0
        self._mark = size
        """More than PostgreSQL had when something was last deleted: its files do not shrink, but are filled again."""

    async def run(self, database: Database) -> None:
        """Look, if it is time. Raises SQLAlchemyError."""
        if time.monotonic() < self._next:
            return
        deleted = await self.look(database)
        self._next = time.monotonic() + PERIOD
        if deleted:
            log.info("ledger.forgot", requests=deleted)

    async def look(self, database: Database) -> int:
        """Requests that were deleted."""
        now = int(time.time() * 1000)
        cut = now - int(self._age * 1000)
        deleted = 0
        for _ in range(MOST_PORTIONS):
            found = await database.write(lambda connection: forget(connection, cut))
            deleted += found
            if found < PORTION:
                break
            await asyncio.sleep(PAUSE)
        await database.write(lambda connection: _tidy(connection, cut))
        too_many = await database.write(self._too_many)
        while too_many > 0:
            found = await database.write(lambda connection: forget(connection, None))
            deleted += found
            too_many -= found
            if not found:
                log.warning("ledger.full", size=self._size, why="all that is left is open")
                break
            await asyncio.sleep(PAUSE)
        if deleted and database.sqlite:
            await database.write(_shrink)
        return deleted

    def _too_many(self, connection: Connection) -> int:
        size = used(connection)
        if connection.dialect.name != "sqlite":
            if size <= self._mark:
                return 0
            self._mark = size + size // 20
        elif size <= self._size:
            return 0
        return max(PORTION, int(schema.count(connection, schema.debit) * SHARE))


def _shrink(connection: Connection) -> None:
    """Give a file's empty pages back, one by one: the driver takes one step of a statement without rows."""
    for _ in range(min(_PAGES, connection.execute(text("PRAGMA freelist_count")).scalar_one())):
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")


def used(connection: Connection) -> int:
    """Bytes that the books take."""
    if connection.dialect.name == "sqlite":
        pages = [connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("page_count", "freelist_count")]
        return int((pages[0] - pages[1]) * connection.execute(text("PRAGMA page_size")).scalar_one())
    names = [table.name for table in schema.metadata.sorted_tables]
    statement = text(
        "SELECT coalesce(sum(pg_total_relation_size(to_regclass(n))), 0) FROM unnest(CAST(:names AS text[])) AS n"
    )
    return int(connection.execute(statement, {"names": names}).scalar_one())


def forget(connection: Connection, cut: int | None) -> int:
    """A portion of the oldest requests that have ended, all of them or those from before ``cut``. How many."""
    debit, credit = schema.debit, schema.credit
    old = and_(debit.c.closed, true() if cut is None else debit.c.at < cut)
    ids = connection.execute(select(debit.c.id).where(old).order_by(debit.c.at).limit(PORTION)).scalars().all()
    if ids:
        carry(connection, credit.c.id.in_(ids), len(ids))
        for table in (credit, schema.steps, debit):
            connection.execute(delete(table).where(table.c.id.in_(ids)))
    return len(ids)


def carry(connection: Connection, which: ColumnElement[bool], debits: int) -> None:
    """Note what is about to be deleted."""
    credit = schema.credit
    counts = select(credit.c.standing, func.count()).where(which).group_by(credit.c.standing)
    rows = [{"name": name, "number": number} for name, number in connection.execute(counts)]
    if debits:
        rows.append({"name": "debits", "number": debits})
    if rows:
        statement = upsert(connection, schema.carried)
        sums = {"number": schema.carried.c.number + statement.excluded.number}
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=sums), rows)


def _tidy(connection: Connection, cut: int) -> None:
    """What belongs to no request that is kept."""
    credit, steps, edges = schema.credit, schema.steps, schema.edges
    lonely = and_(schema.LONELY, credit.c.at < cut)
    ids = connection.execute(select(credit.c.id).where(lonely).limit(PORTION)).scalars().all()
    if ids:
        carry(connection, credit.c.id.in_(ids), 0)
        connection.execute(delete(credit).where(credit.c.id.in_(ids)))
    kept = select(schema.debit.c.id).where(schema.debit.c.id == steps.c.id).exists()
    ids = connection.execute(select(steps.c.id).where(steps.c.at < cut, ~kept).limit(PORTION)).scalars().all()
    if ids:
        connection.execute(delete(steps).where(steps.c.id.in_(ids)))
    connection.execute(delete(schema.gaps).where(schema.gaps.c.at < cut))
    connection.execute(delete(edges).where(edges.c.gone, edges.c.heard < cut))
    for kind in ("client", "worker"):
        fold(connection, kind, MOST_ACCOUNTS)


def fold(connection: Connection, kind: str, most: int) -> None:
    """Put those accounts together that were not touched for the longest time and owe nothing."""
    table = schema.accounts
    own = and_(table.c.kind == kind, table.c.name != OTHERS)
    count = connection.execute(select(func.count()).select_from(table).where(own)).scalar_one()
    if count <= most:
        return
    settled = table.c.debits == table.c.credits + table.c.written_off
    oldest = select(table).where(own, settled).order_by(table.c.touched).limit(min(count - most, PORTION))
    rows = connection.execute(oldest).mappings().all()
    names = [row["name"] for row in rows]
    if not names:
        return
    add(connection, _sums(kind, rows), max(row["touched"] for row in rows))
    connection.execute(delete(table).where(table.c.kind == kind, table.c.name.in_(names)))
    connection.execute(delete(schema.endings).where(schema.endings.c.kind == kind, schema.endings.c.name.in_(names)))


def _sums(kind: str, rows: Iterable[Mapping[Any, Any]]) -> Counter[Key]:
    found: Counter[Key] = Counter()
    for row in rows:
        for column in COLUMNS:
            found[kind, OTHERS, column] += row[column]
    return found


def kept(connection: Connection) -> dict[str, int]:
    """Counted anew: what is in the tables, and what was carried forward from them."""
    counts = select(schema.credit.c.standing, func.count()).group_by(schema.credit.c.standing)
    found: dict[str, int] = {standing: number for standing, number in connection.execute(counts)}  # noqa: C416 - a row is no pair to a type checker
    found["debits"] = schema.count(connection, schema.debit)
    for name, number in connection.execute(select(schema.carried)):
        found[name] = found.get(name, 0) + number
    return {name: found.get(name, 0) for name in ("debits", FIRST, WRITTEN_OFF, DUPLICATE, LATE, UNMATCHED)}
