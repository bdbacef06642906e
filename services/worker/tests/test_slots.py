"""Slots that several consumers share: in turn, and none is lost however a wait ends."""

import asyncio

import pytest

from rabbitbal.worker.slots import Intake, Slots, Turn
from tests.bench import still
from tests.harness import until


@pytest.fixture
def slots() -> Slots:
    return Slots(2)


def waiting(intake: Intake) -> tuple[Turn, "asyncio.Task[bool]"]:
    turn = Turn(intake)
    return turn, asyncio.ensure_future(turn.take())


async def test_a_slot_that_is_free_is_had_at_once(slots: Slots) -> None:
    """By whichever consumer it came."""
    assert [await Turn(Intake(slots)).take() for _ in range(2)] == [True, True]


async def test_who_waits_gets_the_next_slot_in_turn(slots: Slots) -> None:
    """One slot for each that is freed, the longest wait first."""
    running = [Turn(Intake(slots)) for _ in range(2)]
    for turn in running:
        assert await turn.take()
    waits = [waiting(Intake(slots))[1] for _ in range(3)]
    assert await still(lambda: not any(wait.done() for wait in waits))
    running[0].free()
    await until(waits[0].done)
    assert await still(lambda: not waits[1].done())
    running[1].free()
    await until(waits[1].done)
    assert not waits[2].done()
    waits[2].cancel()


async def test_a_turn_frees_its_slot_once(slots: Slots) -> None:
    """The ack of a stream frees it, and the end of the run again."""
    first, second = Turn(Intake(slots)), Turn(Intake(slots))
    assert await first.take()
    assert await second.take()
    first.free()
    first.free()
    third, late = waiting(Intake(slots))[1], waiting(Intake(slots))[1]
    await until(third.done)
    assert await still(lambda: not late.done())
    late.cancel()


async def test_a_turn_that_never_came_frees_nothing(slots: Slots) -> None:
    """Or one more would run than there are slots."""
    Turn(Intake(slots)).free()
    assert [await Turn(Intake(slots)).take() for _ in range(2)] == [True, True]
    wait = waiting(Intake(slots))[1]
    assert await still(lambda: not wait.done())
    wait.cancel()


async def test_a_closed_intake_gives_back_what_waits_and_what_comes(slots: Slots) -> None:
    """Others wait on, and what runs goes on."""
    closing, other = Intake(slots), Intake(slots)
    running = [Turn(closing) for _ in range(2)]
    for turn in running:
        assert await turn.take()
    ours, theirs = waiting(closing)[1], waiting(other)[1]
    await asyncio.sleep(0)
    closing.close()
    await until(ours.done)
    assert (ours.result(), theirs.done()) == (False, False)
    assert await Turn(closing).take() is False
    running[0].free()
    await until(theirs.done)
    assert theirs.result() is True


async def test_a_wait_that_is_cancelled_loses_no_slot(slots: Slots) -> None:
    """Also in the very moment in which it ended well."""
    running = [Turn(Intake(slots)) for _ in range(2)]
    for turn in running:
        assert await turn.take()
    first, second, third = (waiting(Intake(slots))[1] for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    running[0].free()
    await until(second.done)
    # Both slots are taken. Now the grant and the cancellation meet.
    running[1].free()
    third.cancel()
    await asyncio.wait({first, third})
    assert (first.cancelled(), third.cancelled()) == (True, True)
    assert await asyncio.wait_for(Turn(Intake(slots)).take(), 1)
