"""What edges say of themselves, beside what was booked for them: what is missing has passed the tap by.

Pure but for reading and writing the rows. An edge tells how many requests it has opened and closed since it started.
When its figures are read, all that it said before has been read, too: the queue keeps the order. So what it counts more
than the books do is missing. A few may be under way just then; what is missing still at the next figures is missed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, and_, false, func, or_, select

from rabbitbal.tap.ledger import schema
from rabbitbal.tap.ledger.booking import Booked, Segment, book, upsert
from rabbitbal.tap.ledger.clock import Clock
from rabbitbal.tap.ledger.entry import ADJUSTMENT
from rabbitbal.tap.ledger.postings import Credit
from rabbitbal.wire.figures import EdgeFigures

# Milliseconds: of an edge that says nothing; of one that has said that it leaves, for what is under way.
SILENCE = 30_000
LEFT = 4_000
# Between what an edge calls its oldest request and what a request calls its beginning.
MARGIN = 1_000
# An edge may say what it likes; sums of it must stay numbers of 64 bits.
MOST_MISSED = 10**12
# Entries that are written off in one transaction.
MOST_WRITTEN_OFF = 2_000

UNTOLD = "untold"
"""The edge ended requests and could tell nobody."""
BEFORE = "before"
"""The edge was there before the books were."""
FOUND = "found"
"""Takes back what was called missing and came after all."""
UNSEEN = "unseen"
EDGE_GONE = "edge-gone"
LEDGER = "ledger"


@dataclass(slots=True)
class Edge:
    """One row. ``heard`` is by the clock of the messages (`rabbitbal.tap.ledger.clock`)."""

    edge: str
    heard: int
    debits: int = 0
    endings: int = 0
    since: int | None = None
    figures_at: int | None = None
    opened: int = 0
    closed: int = 0
    untold: int = 0
    pending: int = 0
    oldest: int | None = None
    leaving: bool = False
    lacking_debits: int = 0
    lacking_credits: int = 0
    said_debits: int = 0
    said_credits: int = 0
    said_untold: int = 0
    """Of the credits, those that the edge could not tell. It may have told some of them and not know."""
    gone: bool = False


@dataclass(slots=True)
class Gap:
    at: int
    after: int | None
    edge: str | None
    debits: int
    credits: int
    cause: str


def compare(known: Edge, figures: EdgeFigures, begun: int, cause: str, now: int) -> tuple[Edge, list[Gap]]:
    """The edge's row with its newest figures, and what is missing now."""
    if known.figures_at is not None and known.since == figures.since and figures.at <= known.figures_at:
        # They were read before.
        return known, []
    fresh = known.since != figures.since
    if fresh and known.since is not None:
        # It counts anew.
        known = Edge(known.edge, known.heard)
    lacking_debits = min(max(0, figures.opened - known.debits), MOST_MISSED)
    lacking_credits = min(max(0, figures.closed - known.endings), MOST_MISSED)
    edge = replace(
        known,
        since=figures.since,
        figures_at=figures.at,
        opened=figures.opened,
        closed=figures.closed,
        untold=figures.untold,
        pending=figures.pending,
        oldest=figures.oldest,
        leaving=figures.leaving,
        lacking_debits=lacking_debits,
        lacking_credits=lacking_credits,
    )
    gaps: list[Gap] = []

    def missing(debit: int, credit: int, why: str) -> None:
        if debit or credit:
            gaps.append(Gap(now, known.figures_at, known.edge, debit, credit, why))

    if fresh and figures.since < begun:
        edge.said_debits, edge.said_credits = lacking_debits, lacking_credits
        missing(lacking_debits, lacking_credits, BEFORE)
    elif not fresh or figures.leaving:
        # Behind the last figures there are none to wait for.
        before = (lacking_debits, lacking_credits) if figures.leaving else (known.lacking_debits, known.lacking_credits)
        quiet = not fresh and known.opened == figures.opened and known.closed == figures.closed
        debit = _missed(known.said_debits, before[0], lacking_debits, quiet=quiet)
        credit = _missed(known.said_credits, before[1], lacking_credits, quiet=quiet)
        edge.said_debits += debit
        edge.said_credits += credit
        untold = max(0, min(credit, figures.untold - known.said_untold))
        edge.said_untold += untold
        missing(max(debit, 0), max(credit, 0) - untold, cause)
        missing(0, untold, UNTOLD)
        missing(min(debit, 0), min(credit, 0), FOUND)
    return edge, gaps


def _missed(said: int, before: int, now: int, *, quiet: bool) -> int:
    """What must be said besides what was. It is taken back at rest only: while requests flow a few are always ahead."""
    sure = min(before, now)
    if sure > said:
        return sure - said
    most = max(before, now)
    return most - said if quiet and most < said else 0


# --- rows


_NAMES = [f.name for f in fields(Edge)]


def load(connection: Connection, names: Sequence[str]) -> dict[str, Edge]:
    columns = [schema.edges.c[name] for name in _NAMES]
    rows = connection.execute(select(*columns).where(schema.edges.c.edge.in_(names)))
    return {row[0]: Edge(*row) for row in rows}


def store(connection: Connection, edges: Sequence[Edge]) -> None:
    if edges:
        statement = upsert(connection, schema.edges)
        changed = {name: statement.excluded[name] for name in _NAMES if name != "edge"}
        connection.execute(
            statement.on_conflict_do_update(index_elements=["edge"], set_=changed), [asdict(edge) for edge in edges]
        )


def count(connection: Connection, booked: Booked, heard: int, also: Sequence[str] = ()) -> dict[str, Edge]:
    """Add what was booked to the edges' rows. They are not stored yet."""
    names = sorted({*booked.debits, *booked.endings, *also})
    known = load(connection, names)
    for name in names:
        edge = known.setdefault(name, Edge(name, heard))
        edge.debits += booked.debits[name]
        edge.endings += booked.endings[name]
        if booked.debits[name] or name in also:
            edge.heard, edge.gone = max(edge.heard, heard), False
    return known


def say(connection: Connection, gaps: Sequence[Gap]) -> None:
    if gaps:
        connection.execute(schema.gaps.insert(), [asdict(gap) for gap in gaps])


# --- write-offs


def write_off_unseen(connection: Connection, before: Edge, now: int) -> None:
    """Entries that are older than all that the edge had pending by the figures before the newest."""
    if before.figures_at is None:
        return
    cut = (before.figures_at if before.oldest is None else before.oldest) - MARGIN
    began = func.coalesce(schema.debit.c.sent, schema.debit.c.at)
    _write_off(connection, before.edge, UNSEEN, now, began < cut)


def write_off_gone(connection: Connection, clock: Clock, now: int) -> int:
    """Entries of edges that have left, or have been silent for long. How many."""
    edges, total = schema.edges, 0
    silent = and_(edges.c.leaving, edges.c.heard <= clock.newest - LEFT)
    if clock.newest - clock.since >= SILENCE:
        # So long nothing was missed that an edge may have said.
        silent = or_(silent, edges.c.heard <= clock.newest - SILENCE)
    names = connection.execute(select(edges.c.edge).where(edges.c.gone == false(), silent)).scalars().all()
    for name in names:
        found = _write_off(connection, name, EDGE_GONE, now)
        total += found
        if found < MOST_WRITTEN_OFF:
            connection.execute(edges.update().where(edges.c.edge == name).values(gone=True))
    return total


def _write_off(connection: Connection, edge: str, reason: str, now: int, *which: Any) -> int:
    table = schema.debit
    open_ = select(table.c.id).where(table.c.closed == false(), table.c.edge == edge, *which).limit(MOST_WRITTEN_OFF)
    segment = Segment()
    for name in connection.execute(open_).scalars():
        segment.add(Credit(name, ADJUSTMENT, 1, LEDGER, now, None, edge, None, reason, None, None, 0, None, None))
    book(connection, segment, now)
    return len(segment)
