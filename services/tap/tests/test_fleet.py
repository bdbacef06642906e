"""What the tap knows of edges and workers: the newest figures, for as long as somebody tells them."""

from dataclasses import replace

import pytest

from rabbitbal.tap import fleet as module
from rabbitbal.tap.fleet import SILENCE, WINDOW, Fleet
from rabbitbal.tap.observation import Observation
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.figures import EdgeFigures, PoolFigures, WorkerFigures, encode_figures

START = 1_000_000.0
SECOND = 1_000_000
EDGE = EdgeFigures(at=2000, since=1000, opened=5, closed=3, untold=0, pending=2, oldest=1500)
WORKER = WorkerFigures(2000, 1000, 2, 0, False, 1 << 26, {"default": PoolFigures(4, 0, 2, 10, 5 * SECOND)})


class Tap:
    """A fleet, and the time."""

    def __init__(self) -> None:
        self.now = START
        self.fleet = Fleet(lambda: self.now)

    def hear(self, name: str, figures: EdgeFigures | WorkerFigures, *, key: str | None = None) -> None:
        role = "edge" if isinstance(figures, EdgeFigures) else "worker"
        key = topology.figures_key(role, name) if key is None else key
        self.read(Observation(self.now, Envelope(Kind.FIGURES, "figures", name), encode_figures(figures), key=key))

    def read(self, seen: Observation) -> None:
        self.fleet.see(seen)

    def worker(
        self,
        name: str,
        seconds: float,
        done: int,
        busy: float,
        *,
        running: int = 0,
        slots: int = 4,
        drained: bool = False,
    ) -> None:
        """Figures of so many seconds behind the worker's start, read at once."""
        self.now = START + seconds
        share = PoolFigures(slots, 0, running, done, int(busy * SECOND))
        at = 1000 + int(seconds * 1000)
        self.hear(name, WorkerFigures(at, 1000, running, 0, drained, 1 << 26, {"default": share}))


@pytest.fixture
def tap() -> Tap:
    return Tap()


def test_the_newest_figures_of_each_are_kept(tap: Tap) -> None:
    """With when they were read, and those before them."""
    tap.hear("edge-1", EDGE)
    tap.now += 2
    tap.hear("edge-1", replace(EDGE, at=4000, opened=25))
    tap.hear("worker-1", WORKER)
    assert set(tap.fleet.edges) == {"edge-1"}
    seen = tap.fleet.edges["edge-1"]
    assert (seen.figures.opened, seen.read, seen.first, seen.before) == (25, START + 2, START, EDGE)
    assert tap.fleet.workers["worker-1"].figures == WORKER


def test_a_rate_is_what_came_between_the_last_two(tap: Tap) -> None:
    """By the sender's clock: how late the tap reads does not matter."""
    tap.hear("edge-1", EDGE)
    assert tap.fleet.edges["edge-1"].rate("opened") is None
    tap.hear("edge-1", replace(EDGE, at=4000, opened=25))
    assert tap.fleet.edges["edge-1"].rate("opened") == 10.0


def test_what_comes_twice_or_late_changes_nothing(tap: Tap) -> None:
    """After a broken connection the broker brings old figures again."""
    tap.hear("edge-1", replace(EDGE, at=4000, opened=25))
    tap.hear("edge-1", EDGE)
    tap.hear("edge-1", replace(EDGE, at=4000, opened=26))
    assert tap.fleet.edges["edge-1"].figures.opened == 25
    tap.worker("worker-1", 0, 0, 0)
    tap.worker("worker-1", 4, 8, 4)
    tap.worker("worker-1", 2, 4, 2)
    tap.worker("worker-1", 4, 8, 4)
    assert tap.fleet.pools()["default"].done == 8


def test_a_new_life_begins_anew(tap: Tap) -> None:
    """The same id counts from 0 again; a difference would be nonsense."""
    tap.hear("edge-1", replace(EDGE, opened=1000))
    tap.hear("edge-1", replace(EDGE, since=5000, at=6000, opened=1))
    assert tap.fleet.edges["edge-1"].before is None
    tap.worker("worker-1", 0, 100, 50)
    tap.hear("worker-1", replace(WORKER, since=5000, at=6000))
    assert tap.fleet.pools()["default"].done == 0


def test_the_silent_are_forgotten_and_who_leaves_at_once(tap: Tap) -> None:
    """A killed edge says nothing; one that stops says so."""
    tap.hear("edge-1", EDGE)
    tap.hear("edge-2", EDGE)
    tap.hear("worker-1", WORKER)
    tap.hear("worker-2", WORKER)
    tap.hear("edge-2", replace(EDGE, at=3000, leaving=True))
    tap.hear("worker-2", replace(WORKER, at=3000, leaving=True))
    assert (set(tap.fleet.edges), set(tap.fleet.workers)) == ({"edge-1"}, {"worker-1"})
    tap.now += SILENCE
    assert set(tap.fleet.edges) == {"edge-1"}
    tap.now += 1.5
    assert (tap.fleet.edges, tap.fleet.workers) == ({}, {})


def test_a_pool_is_the_sum_of_its_workers(tap: Tap) -> None:
    """A drained one has no slots to offer, but what it runs is running."""
    tap.worker("worker-1", 0, 0, 0, running=3)
    tap.worker("worker-2", 0, 0, 0, running=1, slots=2)
    tap.worker("worker-3", 0, 0, 0, running=2, drained=True)
    pool = tap.fleet.pools()["default"]
    assert (pool.workers, pool.drained, pool.slots, pool.running) == (2, 1, 6, 6)
    assert pool.slot_time is None


def test_rates_of_a_pool_are_over_the_window(tap: Tap) -> None:
    """Two workers, each 5 requests a second of 0.4 s: 10 a second in all."""
    for seconds in range(0, 62, 2):
        for name in ("worker-1", "worker-2"):
            tap.worker(name, seconds, seconds * 5, seconds * 2)
    pool = tap.fleet.pools()["default"]
    assert pool.done_rate == pytest.approx(10, rel=0.04)
    assert pool.slot_time == pytest.approx(0.4)


def test_what_was_done_before_a_worker_was_heard_of_is_not_done_now(tap: Tap) -> None:
    """A tap that starts anew sees workers that have run for days."""
    tap.worker("worker-1", 0, 1_000_000, 1_000_000)
    assert tap.fleet.pools()["default"].done_rate == 0
    tap.worker("worker-1", 2, 1_000_010, 1_000_001)
    assert tap.fleet.pools()["default"].done == 10


def test_a_worker_that_leaves_takes_nothing_back(tap: Tap) -> None:
    """Its last requests count, and the sum does not fall."""
    tap.worker("worker-1", 0, 0, 0)
    tap.worker("worker-2", 0, 0, 0)
    tap.worker("worker-1", 2, 10, 1)
    tap.hear("worker-1", replace(WORKER, at=4000, pools={"default": PoolFigures(4, 0, 0, 14, SECOND)}, leaving=True))
    pool = tap.fleet.pools()["default"]
    assert (pool.workers, pool.done) == (1, 14)


def test_an_idle_pool_remembers_how_long_its_requests_took(tap: Tap) -> None:
    """Whoever scales wants to know it when the next ones come."""
    tap.worker("worker-1", 0, 0, 0)
    tap.worker("worker-1", 2, 10, 5)
    tap.fleet.pools()
    for seconds in range(4, 100, 2):
        tap.worker("worker-1", seconds, 10, 5)
    pool = tap.fleet.pools()["default"]
    assert (pool.done_rate, pool.slot_time) == (0, 0.5)


def test_a_pool_without_workers_is_forgotten_after_the_window(tap: Tap) -> None:
    """Until then its rates are what they were."""
    tap.worker("worker-1", 0, 0, 0)
    tap.now += SILENCE + 1.5
    assert tap.fleet.pools()["default"].workers == 0
    tap.now += WINDOW
    assert tap.fleet.pools() == {}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("edge-1", "figures.worker.edge-1"),
        ("edge-1", "figures.edge.edge-2"),
        ("edge 1", "figures.edge.edge 1"),
        ("x" * 65, "figures.edge." + "x" * 65),
        ("edge-1\n", "figures.edge.edge-1\n"),
    ],
)
def test_nobody_speaks_for_another(tap: Tap, name: str, key: str) -> None:
    """The broker has checked who may use a key, so a worker cannot be an edge."""
    tap.hear(name, EDGE, key=key)
    assert (tap.fleet.edges, tap.fleet.bad) == ({}, 1)


def test_what_makes_no_sense_is_counted(tap: Tap) -> None:
    """And what is of another kind is not looked at."""
    tap.read(Observation(START, Envelope(Kind.FIGURES, "figures", "edge-1"), b"nonsense"))
    tap.read(Observation(START, Envelope(Kind.NOTICE, "notice", "edge-1"), b"nonsense"))
    assert tap.fleet.bad == 1


def test_there_is_room_for_so_many_and_no_more(tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes up senders drives out none that is there."""
    monkeypatch.setattr(module, "MOST_EDGES", 3)
    monkeypatch.setattr(module, "MOST_WORKERS", 3)
    monkeypatch.setattr(module, "MOST_POOLS", 3)
    for number in range(5):
        tap.hear(f"edge-{number}", EDGE)
        tap.hear(f"worker-{number}", replace(WORKER, pools={f"pool-{number}": PoolFigures(1, 0, 0, 0, 0)}))
    assert set(tap.fleet.edges) == {"edge-0", "edge-1", "edge-2"}
    assert set(tap.fleet.workers) == {"worker-0", "worker-1", "worker-2"}
    assert set(tap.fleet.pools()) == {"pool-0", "pool-1", "pool-2"}
    assert tap.fleet.turned_away == 6
    tap.hear("edge-0", replace(EDGE, at=9000, opened=9))
    assert tap.fleet.edges["edge-0"].figures.opened == 9


def test_marks_of_a_pool_are_bounded(tap: Tap) -> None:
    """However often its workers tell."""
    for tenth in range(3000):
        tap.worker("worker-1", tenth / 10, tenth, 0)
    assert len(tap.fleet._tallies["default"].marks) <= WINDOW + 2
