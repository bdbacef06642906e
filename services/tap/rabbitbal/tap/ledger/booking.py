"""Postings into the tables: what is known of each request is read, settled anew, and what changed is written.

The caller holds the one transaction that may write, so between reading and writing nobody comes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from rabbitbal.tap.ledger import schema
from rabbitbal.tap.ledger.entry import COLUMNS, Entry, Key, difference
from rabbitbal.tap.ledger.postings import Credit, Debit, Posting, Step

# Parameters of one statement: SQLite's most is 32,766, PostgreSQL's 65,535.
PORTION = 5000

_DEBIT = ("id", "edge", "route", "client", "worker", "pool", "attempt", "closed")
_CHANGING = ("worker", "pool", "attempt", "closed")
_CREDIT = tuple(column.name for column in schema.credit.columns)


@dataclass(slots=True)
class Segment:
    """Postings that no edge's figures lie between. The same posting twice is one."""

    debits: dict[str, Debit] = field(default_factory=dict)
    credits: dict[tuple[str, str, int, str], Credit] = field(default_factory=dict)
    steps: dict[tuple[str, str, int, str], Step] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.debits) + len(self.credits) + len(self.steps)

    def add(self, posting: Posting) -> None:
        if isinstance(posting, Debit):
            self.debits.setdefault(posting.id, posting)
        elif isinstance(posting, Credit):
            self.credits.setdefault(posting.name, posting)
        else:
            self.steps.setdefault(posting.name, posting)

    def join(self, later: "Segment") -> None:
        self.debits = later.debits | self.debits
        self.credits = later.credits | self.credits
        self.steps = later.steps | self.steps

    def ids(self) -> list[str]:
        names = dict.fromkeys(self.debits)
        names |= dict.fromkeys(credit.id for credit in self.credits.values())
        names |= dict.fromkeys(step.id for step in self.steps.values())
        return list(names)


@dataclass(slots=True)
class Booked:
    """By edge: what was new. An ending counts once for each request, whether its debit is known or not."""

    debits: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)


def book(connection: Connection, segment: Segment, now: int) -> Booked:
    """What was booked before changes nothing."""
    booked = Booked()
    if not len(segment):
        return booked
    entries = {entry.id: entry for entry in load(connection, segment.ids())}
    before = {name: _State.of(entry) for name, entry in entries.items() if entry.debit or entry.credits}
    new_debits = _open(segment, entries)
    opened = {debit.id for debit in new_debits}
    noted = _steps(connection, segment, new_debits)
    for step in noted.values():
        # What was read before the request itself says who has it, too. All else was noted when it was new.
        if step.id in opened:
            _note(entries, step)
    for step in segment.steps.values():
        if step.name not in noted:
            _note(entries, step)
    for credit in segment.credits.values():
        entries.setdefault(credit.id, Entry(credit.id)).add(credit)
    new_credits, changed_credits, changed_debits = [], [], []
    for name, entry in entries.items():
        entry.settle()
        was = before.get(name) or _State()
        for credit in entry.credits.values():
            known = was.credits.get(credit.name)
            if known is None:
                new_credits.append(asdict(credit))
            elif known != (now_is := _shown(credit)):
                changed_credits.append(_key(credit) | dict(zip(("standing", "worker", "pool"), now_is, strict=True)))
        if entry.debit and was.debit and was.changing != _changing(entry):
            changed_debits.append({"id_": name} | dict(zip(_CHANGING, _changing(entry), strict=True)))
        _count(booked, entry, was)
    _insert(connection, schema.debit, [asdict(debit) | _own(entries[debit.id]) for debit in new_debits])
    _insert(connection, schema.credit, new_credits)
    _update(connection, schema.debit, ("id",), changed_debits)
    _update(connection, schema.credit, ("id", "kind", "attempt", "sender"), changed_credits)
    if segment.steps:
        statement = upsert(connection, schema.steps).on_conflict_do_nothing()
        connection.execute(statement, [asdict(step) for step in segment.steps.values()])
    states = before.values()
    add(connection, difference((s.accounts for s in states), (e.accounts() for e in entries.values())), now)
    _add_endings(connection, difference((s.endings for s in states), (e.endings() for e in entries.values())))
    return booked


def load(connection: Connection, ids: Sequence[str]) -> Iterator[Entry]:
    """What is known of each. Those that nothing is known of are not given."""
    for start in range(0, len(ids), PORTION):
        some = ids[start : start + PORTION]
        found: dict[str, Entry] = {}
        columns = [schema.debit.c[name] for name in _DEBIT]
        for row in connection.execute(select(*columns).where(schema.debit.c.id.in_(some))):
            found[row[0]] = Entry(row[0], True, *row[1:])
        statement = select(schema.credit).where(schema.credit.c.id.in_(some)).order_by(schema.credit.c.at)
        for row in connection.execute(statement):
            found.setdefault(row[0], Entry(row[0])).add(Credit(*row))
        yield from found.values()


def add(connection: Connection, changes: Counter[Key], now: int) -> None:
    """To the accounts."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (kind, name, column), number in changes.items():
        row = rows.setdefault((kind, name), {"kind": kind, "name": name, "touched": now, **dict.fromkeys(COLUMNS, 0)})
        row[column] += number
    if rows:
        table = schema.accounts
        statement = upsert(connection, table)
        sums: dict[str, Any] = {name: table.c[name] + statement.excluded[name] for name in COLUMNS}
        sums["touched"] = statement.excluded.touched
        # In one order, always: two writers that wait for each other's rows would wait for ever.
        ordered = [rows[name] for name in sorted(rows)]
        connection.execute(statement.on_conflict_do_update(index_elements=["kind", "name"], set_=sums), ordered)


def _add_endings(connection: Connection, changes: Counter[Key]) -> None:
    if changes:
        table = schema.endings
        statement = upsert(connection, table)
        sums = {"number": table.c.number + statement.excluded.number}
        rows = [
            {"kind": kind, "name": name, "ending": ending, "number": number}
            for (kind, name, ending), number in sorted(changes.items())
        ]
        connection.execute(statement.on_conflict_do_update(index_elements=["kind", "name", "ending"], set_=sums), rows)


def upsert(connection: Connection, table: Table) -> Any:
    """The two dialects say it alike, each with its own class."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def _open(segment: Segment, entries: dict[str, Entry]) -> list[Debit]:
    """The debits that are new, put into their entries."""
    new = []
    for debit in segment.debits.values():
        entry = entries.setdefault(debit.id, Entry(debit.id))
        if not entry.debit:
            entry.debit, entry.edge, entry.route, entry.client = True, debit.edge, debit.route, debit.client
            new.append(debit)
    return new


def _steps(connection: Connection, segment: Segment, new: Sequence[Debit]) -> dict[tuple[str, str, int, str], Step]:
    """Those that are in the tables already, of requests that are new or have steps now."""
    ids = list(dict.fromkeys([*(debit.id for debit in new), *(step.id for step in segment.steps.values())]))
    found = {}
    for start in range(0, len(ids), PORTION):
        some = schema.steps.c.id.in_(ids[start : start + PORTION])
        for row in connection.execute(select(schema.steps).where(some).order_by(schema.steps.c.at)):
            step = Step(*row)
            found[step.name] = step
    return found


def _note(entries: dict[str, Entry], step: Step) -> None:
    """Who has a request that is open."""
    entry = entries.get(step.id)
    if entry is None or not entry.debit or entry.closed or step.attempt < entry.attempt:
        return
    if step.attempt > entry.attempt:
        entry.attempt, entry.worker = step.attempt, None
    if step.kind in ("claim", "head"):
        entry.worker, entry.pool = step.sender, step.pool or entry.pool


def _count(booked: Booked, entry: Entry, was: "_State") -> None:
    if entry.debit and not was.debit and entry.edge:
        booked.debits[entry.edge] += 1
    if entry.ended and (edge := _edge(entry)) and not was.counted:
        booked.endings[edge] += 1


def _edge(entry: Entry) -> str | None:
    return entry.edge or next((credit.edge for credit in entry.credits.values() if credit.edge), None)


@dataclass(slots=True)
class _State:
    """An entry as the tables have it."""

    debit: bool = False
    counted: bool = False
    changing: tuple[Any, ...] = ()
    credits: dict[tuple[str, str, int, str], tuple[Any, ...]] = field(default_factory=dict)
    accounts: Counter[Key] = field(default_factory=Counter)
    endings: Counter[Key] = field(default_factory=Counter)

    @classmethod
    def of(cls, entry: Entry) -> "_State":
        return cls(
            entry.debit,
            entry.ended and _edge(entry) is not None,
            _changing(entry),
            {name: _shown(credit) for name, credit in entry.credits.items()},
            entry.accounts(),
            entry.endings(),
        )


def _changing(entry: Entry) -> tuple[Any, ...]:
    return entry.worker, entry.pool, entry.attempt, entry.closed


def _own(entry: Entry) -> dict[str, Any]:
    return dict(zip(_CHANGING, _changing(entry), strict=True))


def _shown(credit: Credit) -> tuple[Any, ...]:
    return credit.standing, credit.worker, credit.pool


def _key(credit: Credit) -> dict[str, Any]:
    return {"id_": credit.id, "kind_": credit.kind, "attempt_": credit.attempt, "sender_": credit.sender}


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(table.insert(), rows)


def _update(connection: Connection, table: Table, keys: Iterable[str], rows: list[dict[str, Any]]) -> None:
    if rows:
        statement = table.update()
        for key in keys:
            statement = statement.where(table.c[key] == bindparam(f"{key}_"))
        connection.execute(statement, rows)
