"""Shares of a sticky pool: fair, whoever comes and goes, and no partition stays free. Played without a broker."""

import random

import pytest

from rabbitbal.wire.topology import PARTITIONS
from rabbitbal.worker.leases import ROUND, Share, period, preference

ALL = set(range(PARTITIONS))


class Game:
    """Workers that look in a random order, once each a turn; an exclusive consumer is an entry in ``owner``."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.shares: dict[str, Share] = {}
        self.owner: dict[int, str] = {}
        self.strangers = 0
        self.frozen: set[str] = set()
        self.moves = 0
        self._born = 0

    def come(self, number: int) -> None:
        for _ in range(number):
            self._born += 1
            self.shares[f"worker-{self._born}"] = Share(f"worker-{self._born}")

    def go(self, number: int) -> None:
        for name in self._dice.sample(sorted(self.shares), number):
            del self.shares[name]
            self.owner = {key: owner for key, owner in self.owner.items() if owner != name}

    def held(self, name: str) -> set[int]:
        return {number for number, owner in self.owner.items() if owner == name}

    def turn(self) -> None:
        names = sorted(self.shares.keys() - self.frozen)
        self._dice.shuffle(names)
        for name in names:
            share = self.shares[name]
            for number in share.surplus(len(self.shares) + self.strangers, self.held(name)):
                assert self.owner.pop(number) == name
            if share.wants_to_look(self.held(name)):
                for number in share.to_take(ALL - self.owner.keys(), self.held(name)):
                    self.moves += 1
                    assert number not in self.owner
                    self.owner[number] = name

    def turns(self, number: int) -> None:
        for _ in range(number):
            self.turn()

    def fair(self) -> bool:
        sizes = [len(self.held(name)) for name in self.shares]
        return sum(sizes) == PARTITIONS and max(sizes) - min(sizes) <= 1


def test_a_preference_is_an_order_of_all_partitions_and_each_worker_has_its_own() -> None:
    """So that two workers seldom try the same partition; the same name gives the same order."""
    assert sorted(preference("a")) == sorted(ALL)
    assert preference("a") == preference("a")
    assert len({tuple(preference(f"worker-{number}")[:3]) for number in range(20)}) > 15


def test_the_first_worker_takes_all_at_its_first_look() -> None:
    game = Game(0)
    game.come(1)
    game.turn()
    assert game.held("worker-1") == ALL


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("number", [2, 3, 5, 7, 8, 12, 20, 31, 32, 33, 50])
def test_workers_that_start_together_share_fairly(number: int, seed: int) -> None:
    """Within one of each other, and nothing is free."""
    game = Game(seed)
    game.come(number)
    game.turns(10)
    assert game.fair()


@pytest.mark.parametrize("seed", range(20))
def test_shares_stay_fair_whoever_comes_and_goes(seed: int) -> None:
    """And nothing moves once they are."""
    game, dice = Game(seed), random.Random(seed)
    game.come(1)
    for _ in range(30):
        if len(game.shares) > 1 and dice.random() < 0.5:
            game.go(dice.randint(1, len(game.shares) - 1))
        else:
            game.come(dice.randint(1, 6))
        game.turns(dice.randint(0, 12))
        if dice.random() < 0.5:
            game.turns(12)
            assert game.fair()
            moves = game.moves
            game.turns(10)
            assert game.moves == moves


def test_who_dies_has_heirs_at_their_next_look() -> None:
    """All but the extras, which take one look more."""
    game = Game(1)
    game.come(3)
    game.turns(10)
    game.go(1)
    game.turn()
    assert game.fair()


def test_a_newcomer_moves_no_more_than_it_must() -> None:
    """Its own share, and the extras."""
    game = Game(2)
    game.come(2)
    game.turns(10)
    before = dict(game.owner)
    game.come(1)
    game.turns(10)
    assert game.fair()
    assert sum(before[number] != owner for number, owner in game.owner.items()) <= 12


def test_a_worker_that_is_frozen_keeps_its_share_until_it_is_gone() -> None:
    """The broker believes in it for as long as its heartbeats are not overdue. Nobody else is the poorer for it."""
    game = Game(3)
    game.come(4)
    game.turns(10)
    (frozen, *_) = game.shares
    game.frozen = {frozen}
    game.come(1)
    game.turns(10)
    assert len(game.held(frozen)) == 8
    assert len(game.owner) == PARTITIONS
    game.frozen = set()
    game.turns(10)
    assert game.fair()


def test_a_partition_is_served_though_somebody_takes_none() -> None:
    """A consumer of the pool that knows nothing of partitions counts as a worker."""
    game = Game(4)
    game.come(2)
    game.strangers = 2
    game.turns(3)
    assert len(game.owner) == 16
    game.turns(4 * ROUND)
    assert len(game.owner) == PARTITIONS


def test_who_has_its_share_looks_seldom() -> None:
    """Each look at all partitions is a question to the broker for each."""
    share = Share("a")
    share.surplus(2, set())
    held = set(range(16))
    looks = []
    for _ in range(4 * ROUND):
        share.surplus(2, held)
        looks.append(share.wants_to_look(held))
    assert sum(looks) == 4


def test_a_count_that_leaves_oneself_out_is_no_division_by_nought() -> None:
    """The broker's figure may be older than one's own consumer."""
    share = Share("a")
    assert share.surplus(0, set()) == []
    assert len(share.to_take(ALL, set())) == PARTITIONS


def test_many_workers_look_more_seldom() -> None:
    """So that the questions do not grow with their number."""
    assert [period(number) for number in (1, 16, 32, 160)] == [1.0, 1.0, 2.0, 10.0]
