"""What clients counted beside what the tap's books say, request by request; pure.

A request has a key in its target. nginx may give one to a second edge when the first one dies, so one answer may be two
entries of the books. What is not one entry for one answer has a name here, or is a disagreement.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

# What is as it should be.
ONE = "one answer, one entry, the same ending"
REPEATED = "repeated by nginx: its first edge was killed, and that entry is written off"
REPEATED_ANSWERED = "repeated by nginx: a worker had answered the edge that was killed"
LOST = "answered `edge-down` by nginx: its edge was killed, and the entry is written off"
LOST_ANSWERED = "answered `edge-down` by nginx: a worker had answered the edge that was killed"
NEVER_PUBLISHED = "answered `edge-down` by nginx: its edge was killed before it had published it"

MOST_SHOWN = 20
# What nginx says in `Rabbitbal-Error` where it answers for an edge.
EDGE_DOWN = "edge-down"


@dataclass(frozen=True, slots=True)
class Told:
    """What the client had. ``reason`` is what `Rabbitbal-Error` said."""

    key: str
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A debit of the books with the credit that closes it, where there is one. ``standing`` is that credit's."""

    key: str
    edge: str
    standing: str | None
    status: int | None
    reason: str | None


@dataclass
class Reconciliation:
    """``kinds`` counts requests by what became of them; ``disagreements`` says what cannot be."""

    kinds: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        return not self.disagreements


def reconcile(told: Iterable[Told], entries: Iterable[Entry], killed: Collection[str]) -> Reconciliation:
    """``killed`` are beginnings of the names of edges that were killed."""
    found = Reconciliation()
    booked: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        booked[entry.key].append(entry)
    for one in told:
        mine = booked.pop(one.key, [])
        kind = _kind(one, mine, tuple(killed))
        if kind is None:
            found.disagreements.append(f"{one}: {mine or 'no entry'}")
        else:
            found.kinds[kind] += 1
    found.disagreements += [f"an entry of a request that nobody sent: {mine}" for mine in booked.values()]
    return found


def _kind(told: Told, entries: list[Entry], killed: tuple[str, ...]) -> str | None:
    """None where the two cannot both be true."""
    closing = [e for e in entries if _same(told, e)]
    others = [e for e in entries if not _same(told, e)]
    if told.reason == EDGE_DOWN:
        # The edge was gone, and the request could not be repeated.
        if not entries:
            return NEVER_PUBLISHED if killed else None
        if len(entries) > 2 or not all(e.edge.startswith(killed) for e in entries):
            return None
        return LOST if all(_written_off(e) for e in entries) else _answered(entries, LOST_ANSWERED)
    if len(closing) == 1 and not others:
        return ONE
    if len(entries) != 2 or not killed:
        return None
    gone = others if closing else []
    if len(closing) == 2:
        gone = [e for e in closing if e.edge.startswith(killed)][:1]
    if len(gone) != 1 or not gone[0].edge.startswith(killed):
        return None
    return REPEATED if _written_off(gone[0]) else _answered(gone, REPEATED_ANSWERED)


def _same(told: Told, entry: Entry) -> bool:
    return entry.standing == "first" and (entry.status, entry.reason or "") == (told.status, told.reason)


def _written_off(entry: Entry) -> bool:
    return entry.standing == "written-off" and entry.reason == "edge-gone"


def _answered(entries: list[Entry], kind: str) -> str | None:
    return kind if all(e.standing == "first" or _written_off(e) for e in entries) else None
