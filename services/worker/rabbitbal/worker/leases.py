"""Which partitions of a sticky pool a worker should hold. Pure: it is told what a look at the broker has shown.

Workers do not know each other. Each sees how many of them there are and which partitions nobody holds, and the broker
gives a partition to one of those who ask. The rules keep the shares within one of each other:

* a fair share is the *floor* of partitions / workers, and for some one more, the *extras*;
* whoever has less than the floor takes what is free;
* when there are more workers than before, whoever has more than the new floor releases the difference, so that a
  newcomer finds its floor;
* the extras are for when everybody has the floor: that is so when no more than the extras are free, and everybody has
  had the time to look after the last newcomer;
* a partition that stays free for several looks is anybody's. There is somebody among the consumers who takes none, and
  one that nobody serves is worse than an unfair share.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field

from rabbitbal.wire.topology import PARTITIONS

# Looks after a newcomer was seen until the extras may be taken: each other worker has looked once by then.
SETTLED = 2
# Looks between two that are at all partitions, though there was nothing to take; and until a free one is anybody's.
ROUND = 5


def preference(worker: str) -> list[int]:
    """All partitions, the one that the worker takes first in front. Rendezvous hashing: two workers seldom try the same
    one at the same time, and one that goes away and comes back by the same name likes the same ones."""
    return sorted(range(PARTITIONS), key=lambda number: hashlib.sha256(f"{worker}.{number}".encode()).digest())


@dataclass
class Share:
    """One worker's share of one pool, look by look."""

    worker: str
    _order: list[int] = field(init=False)
    _members: int = 0
    _looks: int = 0
    _since_newcomer: int = 0
    _free_since: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._order = preference(self.worker)

    def surplus(self, members: int, held: Collection[int]) -> list[int]:
        """What is to be released, now that so many workers were seen. It begins a look."""
        members = max(1, members)
        newcomer = members > self._members
        if members != self._members:
            # What was free before is on its way to somebody.
            self._free_since.clear()
        self._members = members
        self._looks += 1
        self._since_newcomer = 0 if newcomer else self._since_newcomer + 1
        return [number for number in self._order if number in held][self._floor :] if newcomer else []

    def wants_to_look(self, held: Collection[int]) -> bool:
        """Whether to look which partitions are free."""
        most = self._floor + (self._extras > 0)
        return len(held) < most or bool(self._free_since) or self._looks % ROUND == 0

    def to_take(self, free: Collection[int], held: Collection[int]) -> list[int]:
        """What to try to take, best first. ``free`` is what nobody holds."""
        self._free_since = {number: self._free_since.get(number, self._looks) for number in free}
        liked = [number for number in self._order if number in free]
        take = liked[: max(0, self._floor - len(held))]
        settled = self._since_newcomer >= SETTLED or self._floor == 0
        if not take and len(held) == self._floor and self._extras and settled and len(free) <= self._extras:
            # Seen free before, too: else somebody may just have taken the place of another, and has yet to look.
            take = [number for number in liked if self._free_since[number] < self._looks or not self._floor][:1]
        orphans = [number for number in liked if self._looks - self._free_since[number] >= ROUND]
        # Others see them, too.
        mine = orphans[: -(-len(orphans) // self._members)]
        return take + [number for number in mine if number not in take]

    @property
    def _floor(self) -> int:
        return PARTITIONS // self._members

    @property
    def _extras(self) -> int:
        return PARTITIONS % self._members


def period(members: int) -> float:
    """Seconds between looks. The broker answers no more questions for many workers than for sixteen, and as somebody
    looks all the time, a free partition is found as soon."""
    return max(1.0, members / 16)
