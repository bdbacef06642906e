"""What people ask the books. Each question has a bound in rows; `database.ask` bounds its time."""

from typing import Any

from sqlalchemy import Connection, Row, and_, false, func, or_, select

from rabbitbal.tap.ledger import retention, schema
from rabbitbal.tap.ledger.entry import COLUMNS, TOTAL
from rabbitbal.wire.envelope import Envelope, Kind

# Characters of an id that name a request.
SHORTEST = 6
# Of one request's own rows: an attempt has few.
MOST_STEPS = 200
# Milliseconds around a request in which a gap of its edge may concern it.
AROUND = 60_000

# Id, when it was sent, what the access log will say of it, and the head of its streamed response.
OpenLine = tuple[str, int | None, dict[str, Any], Envelope | None]


class Ambiguous(Exception):
    """The beginning of an id is that of several."""


def balance(connection: Connection, by: str | None, limit: int, *, check: bool) -> dict[str, Any]:
    """The sum of all accounts, the largest of a kind, and with ``check`` the tables counted again."""
    total = next(
        iter(_accounts(connection, TOTAL, 1)), {"name": "", **dict.fromkeys(COLUMNS, 0), "open": 0, "endings": {}}
    )
    total.pop("name")
    missing = connection.execute(
        select(schema.gaps.c.cause, func.sum(schema.gaps.c.debits), func.sum(schema.gaps.c.credits)).group_by(
            schema.gaps.c.cause
        )
    )
    found: dict[str, Any] = {
        "balanced": total["open"] == 0,
        "total": total,
        "gaps": {cause: {"debits": int(d), "credits": int(c)} for cause, d, c in missing},
    }
    if by is not None:
        found |= {"by": by, "accounts": _accounts(connection, by, limit), "of": _number(connection, by)}
    if check:
        found["counted"] = retention.kept(connection)
    return found


def _number(connection: Connection, kind: str) -> int:
    table = schema.accounts
    return connection.execute(select(func.count()).select_from(table).where(table.c.kind == kind)).scalar_one()


def _accounts(connection: Connection, kind: str, limit: int) -> list[dict[str, Any]]:
    table, ends = schema.accounts, schema.endings
    columns = [table.c[name] for name in ("name", *COLUMNS)]
    rows = connection.execute(
        select(*columns).where(table.c.kind == kind).order_by(table.c.debits.desc(), table.c.name).limit(limit)
    )
    found = {row["name"]: _account(row) for row in rows.mappings()}
    told = select(ends.c.name, ends.c.ending, ends.c.number).where(
        ends.c.kind == kind, ends.c.name.in_(list(found)), ends.c.number != 0
    )
    for name, ending, number in connection.execute(told.order_by(ends.c.number.desc(), ends.c.ending)):
        found[name]["endings"][ending] = number
    return list(found.values())


def _account(row: Any) -> dict[str, Any]:
    return {**row, "open": row["debits"] - row["credits"] - row["written_off"], "endings": {}}


def open_entries(connection: Connection, limit: int, now: int) -> dict[str, Any]:
    """Oldest first."""
    table = schema.debit
    columns = [
        table.c[name]
        for name in ("id", "at", "edge", "route", "pool", "worker", "client", "method", "target", "attempt", "leg")
    ]
    rows = connection.execute(select(*columns).where(table.c.closed == false()).order_by(table.c.at).limit(limit))
    count = connection.execute(select(func.count()).select_from(table).where(table.c.closed == false())).scalar_one()
    entries = [{**row, "age_ms": max(0, now - row["at"])} for row in rows.mappings()]
    return {"open": count, "entries": entries}


def story(connection: Connection, start: str) -> dict[str, Any] | None:
    """All that the books know of one request. Raises Ambiguous."""
    name = _find(connection, start)
    if name is None:
        return None
    debit: Any = connection.execute(select(schema.debit).where(schema.debit.c.id == name)).mappings().first()
    endings = _of(connection, schema.credit, name)
    steps = _of(connection, schema.steps, name)
    edge = debit["edge"] if debit else next((credit["edge"] for credit in endings if credit["edge"]), None)
    times = [row["at"] for row in (*([debit] if debit else []), *endings, *steps)]
    return {
        "id": name,
        "debit": None if debit is None else dict(debit),
        "steps": steps,
        "credits": endings,
        "gaps": gaps(connection, MOST_STEPS, edge, (min(times) - AROUND, max(times) + AROUND)),
    }


def _find(connection: Connection, start: str) -> str | None:
    """The id that begins so: the one that is there, in either table."""
    found: set[str] = set()
    for table in (schema.debit, schema.credit):
        exact = connection.execute(select(table.c.id).where(table.c.id == start).limit(1)).scalar()
        if exact is not None:
            return str(exact)
        # A range, which every index can answer; LIKE cannot by all.
        within = and_(table.c.id >= start, table.c.id < start + "\x7f")
        found.update(connection.execute(select(table.c.id).where(within).distinct().limit(2)).scalars())
    if len(found) > 1:
        raise Ambiguous(f"more than one request begins with {start}; give more of its id")
    return next(iter(found), None)


def _of(connection: Connection, table: Any, name: str) -> list[dict[str, Any]]:
    rows = connection.execute(select(table).where(table.c.id == name).order_by(table.c.at).limit(MOST_STEPS))
    return [{key: value for key, value in row.items() if key != "id"} for row in rows.mappings()]


def gaps(
    connection: Connection, limit: int, edge: str | None = None, between: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """Newest first; of one edge, and those that may concern the time ``between``."""
    table = schema.gaps
    found = select(table).order_by(table.c.number.desc()).limit(limit)
    if between is not None:
        found = found.where(
            or_(table.c.edge == edge, table.c.edge.is_(None)),
            table.c.at >= between[0],
            func.coalesce(table.c.after, table.c.at) <= between[1],
        )
    return [dict(row) for row in connection.execute(found).mappings()]


def open_lines(connection: Connection, limit: int) -> list[OpenLine]:
    """The newest that are open, oldest first."""
    table = schema.debit
    newest = select(table).where(table.c.closed == false()).order_by(table.c.at.desc()).limit(limit)
    rows = connection.execute(newest).all()
    heads: dict[str, Envelope] = {}
    names = [row.id for row in rows]
    for start in range(0, len(names), 1000):
        steps = schema.steps
        some = select(steps).where(steps.c.id.in_(names[start : start + 1000]), steps.c.kind == "head")
        for step in connection.execute(some.order_by(steps.c.attempt)):
            heads[step.id] = Envelope(
                Kind.RESPONSE,
                step.id,
                step.sender,
                attempt=step.attempt,
                pool=step.pool,
                duration=step.app_us,
                more=True,
            )
    return [(row.id, row.sent, _line(row), heads.get(row.id)) for row in reversed(rows)]


def _line(row: Row[Any]) -> dict[str, Any]:
    names = ("method", "target", "host", "client", "agent", "referer", "route", "edge", "request_bytes")
    line = {name: getattr(row, name) for name in names}
    some = {"upgrade": row.upgrade, "leg": row.leg, "group": row.grouped, "partition": row.part}
    return line | {name: value for name, value in some.items() if value is not None}
