"""A body in pieces that several copies read."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rabbitbal.edge import publishing
from rabbitbal.edge.spool import IN_MEMORY
from rabbitbal.edge.upload import BodyTooLarge, ClientGone
from rabbitbal.routes.policy import Mode, Policy
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.reasons import Reason
from tests.copies_bench import PLENTY, CopiesBench, Pieces, uploaded
from tests.edge_bench import ORDER, ended, until


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CopiesBench]:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.005)
    bench = CopiesBench()
    yield bench
    await bench.assert_all_over()


FIRST = Policy(mode=Mode.FIRST)


async def test_each_copy_has_the_body_from_its_start(bench: CopiesBench) -> None:
    """The second worker claims when half of it has come."""
    body = Pieces()
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a", credit=1 << 40)
    body.queue.put_nowait(b"one")
    await until(lambda: uploaded(bench, "w-a") == b"one")
    bench.reply(Kind.CLAIM, bench.number("b"), worker="w-b", credit=1 << 40)
    await until(lambda: uploaded(bench, "w-b") == b"one")
    body.queue.put_nowait(b"two")
    body.queue.put_nowait(None)
    await until(lambda: uploaded(bench, "w-a") == uploaded(bench, "w-b") == b"onetwo")
    bench.answer_to("b")
    await ended(task)
    await until(lambda: body.closed)


async def test_a_slow_worker_does_not_hold_up_the_other(bench: CopiesBench) -> None:
    body = Pieces()
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a", credit=0)
    bench.reply(Kind.CLAIM, bench.number("b"), worker="w-b", credit=1 << 40)
    for piece in (b"x" * 1000, None):
        body.queue.put_nowait(piece)
    await until(lambda: len(uploaded(bench, "w-b")) == 1000)
    assert uploaded(bench, "w-a") == b""
    bench.answer_to("b")
    await ended(task)


async def test_a_body_that_cannot_be_kept_is_too_large() -> None:
    bench = CopiesBench(spool=10)
    body = Pieces()
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    for key in "ab":
        bench.reply(Kind.CLAIM, bench.number(key), worker=f"w-{key}", credit=1 << 40)
    body.queue.put_nowait(b"x" * 11)
    assert (await ended(task)).reason is Reason.BODY_TOO_LARGE
    await bench.assert_all_over()


async def test_a_client_that_leaves_in_its_body_leaves_all(bench: CopiesBench) -> None:
    body = Pieces()
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    for key in "ab":
        bench.reply(Kind.CLAIM, bench.number(key), worker=f"w-{key}", credit=1 << 40)
    body.queue.put_nowait(ClientGone())
    assert (await ended(task)).reason is Reason.CLIENT_GONE


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ClientGone(), Reason.CLIENT_GONE),
        (BodyTooLarge(), Reason.BODY_TOO_LARGE),
        (ZeroDivisionError(), Reason.EDGE_ERROR),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", [Mode.FIRST, Mode.ALL])
async def test_a_body_that_ends_early_ends_also_the_copy_that_nobody_has_claimed(
    bench: CopiesBench, mode: Mode, error: Exception, expected: Reason
) -> None:
    """At once, as there is nothing to wait for."""
    body = Pieces()
    task = bench.run(Policy(mode=mode), "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a", credit=PLENTY)
    body.queue.put_nowait(b"part")
    body.queue.put_nowait(error)
    assert (await ended(task)).reason is expected
    assert bench.pending.endings == {expected: 2}
    assert body.closed


async def test_where_others_have_all_the_room_there_is_none() -> None:
    """That is no fault of the client's: it may come again."""
    bench = CopiesBench(spool=10)
    bench.spools.each = 100
    body = Pieces()
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a", credit=PLENTY)
    body.queue.put_nowait(b"x" * 11)
    assert (await ended(task)).reason is Reason.OVERLOADED
    await bench.assert_all_over()


async def test_a_worker_that_dies_in_the_body_is_replaced_and_the_other_goes_on(bench: CopiesBench) -> None:
    body = Pieces()
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    for key in "ab":
        bench.reply(Kind.CLAIM, bench.number(key), worker=f"w-{key}", credit=PLENTY)
    body.queue.put_nowait(b"one")
    await until(lambda: uploaded(bench, "w-a") == uploaded(bench, "w-b") == b"one")
    bench.reply(Kind.REDELIVERED, bench.number("a"), worker="w-c")
    await bench.published(3)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-c", credit=PLENTY)
    for piece in (b"two", None):
        body.queue.put_nowait(piece)
    await until(lambda: uploaded(bench, "w-c") == uploaded(bench, "w-b") == b"onetwo")
    assert uploaded(bench, "w-a") == b"one"
    bench.answer_to("a", worker="w-c")
    assert (await ended(task)).worker == "w-c"


async def test_a_large_body_is_read_by_several_at_their_own_pace(bench: CopiesBench) -> None:
    """From a file, by a quick one and by one that comes when the other has all of it."""
    data = bytes(range(256)) * (3 * IN_MEMORY // 256)
    body = Pieces()
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a", credit=PLENTY)
    for start in range(0, len(data), 10_000):
        body.queue.put_nowait(data[start : start + 10_000])
    body.queue.put_nowait(None)
    await until(lambda: uploaded(bench, "w-a") == data)
    assert bench.spool - bench.spools._left == len(data), "kept once"
    bench.reply(Kind.CLAIM, bench.number("b"), worker="w-b", credit=PLENTY)
    await until(lambda: uploaded(bench, "w-b") == data)
    bench.answer_to("b")
    await ended(task)


async def test_a_client_that_leaves_takes_the_body_with_it(bench: CopiesBench) -> None:
    """Known by the connection, before any worker has claimed a copy: nothing of the body was read."""
    body = Pieces()
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    bench.departure.client_left()
    assert (await ended(task)).reason is Reason.CLIENT_GONE
    assert body.closed


async def test_a_task_that_is_cancelled_in_the_body(bench: CopiesBench) -> None:
    """The edge goes down."""
    body = Pieces()
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, source=body))
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a", credit=PLENTY)
    body.queue.put_nowait(b"one")
    await until(lambda: uploaded(bench, "w-a") == b"one")
    task.cancel()
    await until(lambda: body.closed and task.cancelled())
