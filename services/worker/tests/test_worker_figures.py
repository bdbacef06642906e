"""What a worker counts of its slots, and how it tells it."""

import asyncio
import time

import pytest

from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.figures import PoolFigures, WorkerFigures, decode_figures
from rabbitbal.worker import figures as module
from rabbitbal.worker import run
from rabbitbal.worker.figures import Figures, resident
from rabbitbal.worker.settings import Membership
from rabbitbal.worker.slots import Intake, Slots, Turn
from tests.bench import CUT, NEVER_SENT, Bench, done
from tests.harness import until

POOLS = (Membership("default", 4), Membership("reports", 2, -1))


@pytest.fixture
async def bench() -> Bench:
    return Bench()


def figures(bench: Bench, *, drained: bool = False) -> Figures:
    return Figures("worker-1", bench.broker, bench.runner, POOLS, lambda: drained)


def default(bench: Bench) -> PoolFigures:
    return figures(bench).now().pools["default"]


async def test_a_request_occupies_a_slot_until_it_is_acknowledged(bench: Bench) -> None:
    """Then it is done, and the time that it took is counted."""
    began = time.perf_counter()
    task = bench.deliver()
    await bench.running()
    assert (default(bench).running, default(bench).done, default(bench).busy) == (1, 0, 0)
    bench.app.finish()
    await done(task)
    took = (time.perf_counter() - began) * 1e6
    found = default(bench)
    assert (found.running, found.done) == (0, 1)
    assert 0 < found.busy <= took


async def test_a_pool_that_nothing_came_from_has_its_slots_and_noughts(bench: Bench) -> None:
    """By the settings of the worker."""
    assert figures(bench).now().pools == {"default": PoolFigures(4, 0, 0, 0, 0), "reports": PoolFigures(2, -1, 0, 0, 0)}


async def test_a_stream_that_leaves_its_slot_is_done_and_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot was occupied until then; the stream is counted by itself."""
    monkeypatch.setattr(run, "DETACH_AFTER", 0.005)
    task, call = await bench.streaming(b"one")
    await until(lambda: bench.settled() == ["ack"])
    found = figures(bench).now()
    assert (found.running, found.streams) == (1, 1)
    assert (found.pools["default"].running, found.pools["default"].done) == (0, 1)
    busy = found.pools["default"].busy
    call.end()
    await done(task)
    found = figures(bench).now()
    assert (found.running, found.streams, found.pools["default"].done) == (0, 0, 1)
    assert found.pools["default"].busy == busy


@pytest.mark.parametrize("options", [{"redelivered": True}, {"timeout": -1.0}, {"body": b"nonsense"}])
async def test_a_delivery_that_is_not_run_has_left_its_slot_too(bench: Bench, options: dict[str, object]) -> None:
    """It was taken off the queue: whoever counts arrivals must find it."""
    await done(bench.deliver(**options))  # type: ignore[arg-type]
    assert (default(bench).running, default(bench).done) == (0, 1)


async def test_what_waits_for_a_slot_of_a_sticky_pool_occupies_none(bench: Bench) -> None:
    """It is in hand, and runs when its turn comes."""
    intake = Intake(Slots(1))
    first, second = (bench.deliver(name=name, turn=Turn(intake)) for name in ("one", "two"))
    await bench.running()
    found = figures(bench).now()
    assert (found.running, found.pools["default"].running, found.pools["default"].done) == (2, 1, 0)
    intake.close()
    await done(second)
    assert (default(bench).running, default(bench).done) == (1, 0)
    bench.app.finish()
    await done(first)
    assert (default(bench).running, default(bench).done) == (0, 1)


async def test_who_waits_for_the_acknowledgement_still_hears_of_it(bench: Bench) -> None:
    """The slot of a sticky pool is free for the next one."""
    slots = Slots(1)
    intake = Intake(slots)
    turns = [Turn(intake), Turn(intake)]
    task = bench.deliver(turn=turns[0])
    await bench.running()
    bench.app.finish()
    await done(task)
    turns[0].free()
    next_one = bench.deliver(name="two", turn=turns[1])
    await bench.running(2)
    bench.app.finish()
    await done(next_one)
    assert (default(bench).running, default(bench).done) == (0, 2)


async def test_a_delivery_whose_channel_is_gone_has_left_its_slot(bench: Bench) -> None:
    """The broker gives it to another; here it is over."""
    task = bench.deliver()
    await bench.running()
    bench.messages[0].channel_gone = True
    bench.app.finish()
    await done(task)
    assert (default(bench).running, default(bench).done) == (0, 1)


async def test_figures_are_told_again_and_again_also_of_a_drained_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is lost is no matter."""
    monkeypatch.setattr(module, "PERIOD", 0.005)
    bench.broker.verdicts.extend([CUT, NEVER_SENT])
    running = asyncio.ensure_future(figures(bench, drained=True).run())
    await until(lambda: len(bench.broker.of(Kind.FIGURES)) >= 2)
    running.cancel()
    exchange, key, envelope, body = bench.broker.sent[0]
    assert (exchange, key) == (topology.EVENTS, "figures.worker.worker-1")
    assert (envelope.kind, envelope.app_id) == (Kind.FIGURES, "worker-1")
    found = decode_figures(body)
    assert isinstance(found, WorkerFigures)
    assert (found.drained, found.leaving) == (True, False)
    assert found.memory > 1 << 20


async def test_the_last_figures_of_a_worker_say_so(bench: Bench) -> None:
    """And that the broker does not take them keeps nobody."""
    bench.broker.verdicts.append(NEVER_SENT)
    own = figures(bench)
    await own.leave()
    await own.leave()
    (told,) = bench.broker.of(Kind.FIGURES)
    found = decode_figures(told[1])
    assert isinstance(found, WorkerFigures)
    assert found.leaving


def test_memory_is_that_which_is_resident() -> None:
    """The second number of the line, in pages (proc_pid_statm(5))."""
    assert resident("5000 300 200 1 0 700 0\n") == 300 * resident("0 1 0 0 0 0 0")
