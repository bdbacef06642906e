"""What was seen since the last commit, in the order of the queue, and how it is written."""

from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from rabbitbal.tap.ledger import edges, schema
from rabbitbal.tap.ledger.booking import Segment, book
from rabbitbal.tap.ledger.postings import Credit, Debit, Posting
from rabbitbal.wire.figures import EdgeFigures

# Postings and figures. Messages that are not acknowledged are no more than the tap's prefetch; after a broken
# connection they come again, and are the same ones.
MOST = 50_000

LEDGER_DOWN = "ledger-down"
"""The database was away for longer than the tap was patient."""


@dataclass(slots=True)
class Told:
    """An edge's figures, and what is known of when they came."""

    edge: str
    figures: EdgeFigures
    cause: str
    """Why something may be missing now, if it is."""


@dataclass(slots=True)
class Batch:
    """Segments of postings; each ends with an edge's figures, but for the last."""

    segments: list[tuple[Segment, Told | None, int]] = field(default_factory=list)
    open: Segment = field(default_factory=Segment)
    heard: int = 0
    """How far the clock of the messages was."""
    size: int = 0

    def add(self, posting: Posting, heard: int) -> None:
        self.open.add(posting)
        self.heard = heard
        self.size += 1

    def tell(self, told: Told, heard: int) -> None:
        self.segments.append((self.open, told, heard))
        self.open = Segment()
        self.size += 1

    def write(self, connection: Connection, begun: int, now: int) -> None:
        for segment, told, heard in [*self.segments, (self.open, None, self.heard)]:
            booked = book(connection, segment, now)
            known = edges.count(connection, booked, heard, [told.edge] if told else [])
            if told is None:
                edges.store(connection, list(known.values()))
                continue
            before = known[told.edge]
            after, gaps = edges.compare(before, told.figures, begun, told.cause, now)
            known[told.edge] = after
            edges.store(connection, list(known.values()))
            edges.say(connection, gaps)
            if after is not before:
                edges.write_off_unseen(connection, before, now)

    def missed(self) -> "Missed":
        """What is lost with it."""
        found = Missed()
        for segment in [*(segment for segment, _, _ in self.segments), self.open]:
            found.debits.update(debit.edge for debit in segment.debits.values())
            ended = {credit.id: credit for credit in segment.credits.values()}
            found.credits.update(_edge(credit, segment.debits.get(name)) for name, credit in ended.items())
        return found


def _edge(credit: Credit, debit: Debit | None) -> str | None:
    return credit.edge or (debit.edge if debit else None)


@dataclass(slots=True)
class Missed:
    """Of batches that were given up, by edge."""

    debits: Counter[str | None] = field(default_factory=Counter)
    credits: Counter[str | None] = field(default_factory=Counter)
    since: int | None = None

    def __bool__(self) -> bool:
        return bool(self.debits or self.credits)

    def add(self, other: "Missed", now: int) -> None:
        self.debits.update(other.debits)
        self.credits.update(other.credits)
        self.since = other.since or self.since or now or None

    def write(self, connection: Connection, now: int) -> None:
        """Say it. What is said here is not found missing once more by the edges' own figures."""
        names = self.debits.keys() | self.credits.keys()
        edges.say(
            connection,
            [
                edges.Gap(now, self.since, name, self.debits[name], self.credits[name], LEDGER_DOWN)
                for name in sorted(names, key=str)
            ],
        )
        known = edges.load(connection, [name for name in names if name is not None])
        for edge in known.values():
            edge.said_debits += self.debits[edge.edge]
            edge.said_credits += self.credits[edge.edge]
        edges.store(connection, list(known.values()))


def begun(connection: Connection) -> int:
    """When the first tap began these books."""
    return int(connection.execute(select(schema.meta.c.value).where(schema.meta.c.name == "begun")).scalar_one())
