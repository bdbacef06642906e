"""One request in the books: its debit, its credits, and how they stand to each other.

Exactly one credit closes a debit. Which one depends on the credits there are, not on the order in which they came,
but among equals: what an edge told outranks a worker's answer, as the edge answers the client; an answer outranks
`worker-lost` told by a worker, as the edge may have given the request to another; and anything that was seen outranks
the write-off of what was not.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rabbitbal.tap.ledger.postings import Credit
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.reasons import Reason

FIRST = "first"
"""It closes its debit."""
DUPLICATE = "duplicate"
"""Another one of its kind closed it: the request was answered twice."""
LATE = "late"
"""An answer of a request that the edge had ended."""
UNMATCHED = "unmatched"
"""Its debit is not in the books (yet)."""
WRITTEN_OFF = "written-off"
"""The books' own: no ending was seen, and none will come."""
REVERSED = "reversed"
"""A write-off whose ending was seen after all."""
STANDINGS = (FIRST, DUPLICATE, LATE, UNMATCHED, WRITTEN_OFF, REVERSED)

ADJUSTMENT = "adjustment"
"""The kind of a write-off."""
# The columns of an account, besides the standings' own.
DEBITS = "debits"
COUNTED = {
    FIRST: "credits",
    DUPLICATE: "duplicates",
    LATE: "late",
    UNMATCHED: "unmatched",
    WRITTEN_OFF: "written_off",
}
COLUMNS = (DEBITS, *COUNTED.values())

# (kind of account, its name, column); and (kind, name, ending).
Key = tuple[str, str, str]
TOTAL = "total"
KINDS = ("route", "pool", "worker", "client")
UNKNOWN = "-"
ANSWERED = "answered"


@dataclass(slots=True)
class Entry:
    """``route``, ``client`` and ``edge`` are of the debit; ``worker`` and ``pool`` who has it, as far as is known."""

    id: str
    debit: bool = False
    edge: str | None = None
    route: str | None = None
    client: str | None = None
    worker: str | None = None
    pool: str | None = None
    attempt: int = 1
    """The highest that was seen."""
    closed: bool = False
    credits: dict[tuple[str, str, int, str], Credit] = field(default_factory=dict)

    def add(self, credit: Credit) -> bool:
        """False for one that is known."""
        if credit.name in self.credits:
            return False
        self.credits[credit.name] = credit
        return True

    @property
    def ended(self) -> bool:
        """Whether an ending was seen, be its debit known or not."""
        return any(credit.kind != ADJUSTMENT for credit in self.credits.values())

    def settle(self) -> None:
        """Give each credit its standing, and the entry what is known by the one that closes it."""
        ranked = sorted(self.credits.values(), key=_rank)
        self.closed = self.debit and bool(ranked)
        if not self.debit:
            for credit in ranked:
                credit.standing = UNMATCHED
            return
        if not ranked:
            return
        winner, *others = ranked
        winner.standing = WRITTEN_OFF if winner.kind == ADJUSTMENT else FIRST
        for credit in others:
            credit.standing = _beside(winner, credit)
        if winner.worker is not None:
            self.worker = winner.worker
        elif winner.kind == Kind.ENDED and winner.reason is None:
            # A streamed answer: the edge tells its end, its head told the worker.
            winner.worker = self.worker
        self.pool = winner.pool or self.pool
        winner.pool = winner.pool or self.pool

    def accounts(self) -> Counter[Key]:
        """What the entry adds to each account."""
        found: Counter[Key] = Counter()
        if self.debit:
            for account in self._own():
                found[(*account, DEBITS)] += 1
        for credit in self.credits.values():
            column = COUNTED.get(credit.standing)
            if column is None:
                continue
            closing = credit.standing in (FIRST, WRITTEN_OFF)
            for account in self._own() if closing else self._of(credit):
                found[(*account, column)] += 1
        return found

    def endings(self) -> Counter[Key]:
        """How it ended, for each account."""
        winner = next((c for c in self.credits.values() if c.standing in (FIRST, WRITTEN_OFF)), None)
        if winner is None:
            return Counter()
        return Counter((*account, winner.reason or ANSWERED) for account in self._own())

    def _own(self) -> Sequence[tuple[str, str]]:
        return _accounts(self.route, self.pool, self.worker, self.client)

    def _of(self, credit: Credit) -> Sequence[tuple[str, str]]:
        """A credit too many is its sender's."""
        return _accounts(self.route, credit.pool, credit.worker, self.client)


def _accounts(*names: str | None) -> Sequence[tuple[str, str]]:
    return ((TOTAL, ""), *((kind, name or UNKNOWN) for kind, name in zip(KINDS, names, strict=True)))


def _rank(credit: Credit) -> tuple[int, bool]:
    """Smaller is stronger. Among equals the one that was there before is; sorting keeps the order of coming."""
    if credit.kind == Kind.ENDED:
        strength = 0
    elif credit.kind == ADJUSTMENT:
        strength = 3
    else:
        strength = 2 if credit.reason == Reason.WORKER_LOST else 1
    return strength, credit.standing not in (FIRST, WRITTEN_OFF)


def _beside(winner: Credit, credit: Credit) -> str:
    if credit.kind == ADJUSTMENT:
        return REVERSED
    return LATE if winner.kind == Kind.ENDED and credit.kind != Kind.ENDED else DUPLICATE


def difference(before: Iterable[Counter[Key]], after: Iterable[Counter[Key]]) -> Counter[Key]:
    """What changed, without what did not."""
    found: Counter[Key] = Counter()
    for each in after:
        found.update(each)
    for each in before:
        found.subtract(each)
    return Counter({key: number for key, number in found.items() if number})
