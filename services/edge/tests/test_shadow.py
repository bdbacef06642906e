"""Shadows: nobody waits for them, and nobody suffers from them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rabbitbal.edge import publishing
from rabbitbal.edge.copies import shadow
from rabbitbal.edge.spool import SpoolSpace
from rabbitbal.routes.match import Match
from rabbitbal.routes.policy import Mode, Policy
from rabbitbal.routes.table import Route
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire.envelope import Kind, Leg
from rabbitbal.wire.flow import FIRST_WINDOW
from rabbitbal.wire.reasons import Reason
from tests.copies_bench import BAD, PLENTY, CopiesBench, Pieces, uploaded
from tests.edge_bench import ORDER, PAYLOAD, Client, ended, turns, until
from tests.edge_bench import uploaded as upload


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CopiesBench]:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.005)
    bench = CopiesBench()
    yield bench
    await bench.assert_all_over()


SHADOW = Policy(mode=Mode.SHADOW)


async def test_the_primary_does_not_wait_for_its_shadow(bench: CopiesBench) -> None:
    task = bench.run(SHADOW, "a", "b")
    await bench.published(2)
    assert [(sent.key, sent.envelope.leg) for sent in bench.broker.requests] == [
        ("request.a", Leg.PRIMARY),
        ("request.b", Leg.SHADOW),
    ]
    bench.answer_to("a")
    assert (await ended(task)).worker == "w-a"
    assert bench.pending.endings == {"answered": 1}
    assert bench.copies.stats()["shadows"] == {"sent": 1, "dropped": 0, "pending": 1}
    bench.answer_to("b", BAD)
    await until(lambda: bench.copies.stats()["shadows"] == {"sent": 1, "dropped": 0, "pending": 0})
    assert bench.pending.endings == {"answered": 1}, "a shadow is no client's request"


async def test_a_streamed_shadow_is_read_to_its_end(bench: CopiesBench) -> None:
    task = bench.run(SHADOW, "a", "b")
    await bench.published(2)
    bench.answer_to("a")
    await ended(task)
    bench.head_to("b")
    await turns()
    bench.piece_to("b", b" and last")
    await until(lambda: bench.broker.told(Kind.ENDED))
    (event,) = [sent.envelope for sent in bench.broker.told(Kind.ENDED)]
    assert event.digest == hashlib.sha256(b"first and last").hexdigest()
    assert (event.leg, event.size) == (Leg.SHADOW, 14)


async def test_under_pressure_there_are_no_shadows() -> None:
    """With more than half of the room in use."""
    bench = CopiesBench(max_pending=3)
    others = [await bench.started(), await bench.started()]
    task = bench.run(SHADOW, "a", "b")
    await bench.published(3)
    await turns(20)
    assert [sent.envelope.leg for sent in bench.broker.requests] == [None, None, None]
    assert bench.copies.stats()["shadows"] == {"sent": 0, "dropped": 1, "pending": 0}
    for number in range(3):
        bench.answer(number)
    await asyncio.gather(task, *others)
    await bench.assert_all_over()


async def test_a_sample_of_none_is_none(bench: CopiesBench) -> None:
    task = bench.run(Policy(mode=Mode.SHADOW, sample=1e-12), "a", "b")
    await bench.published(1)
    bench.answer_to("a")
    await ended(task)
    assert len(bench.broker.requests) == 1


def shadows(bench: CopiesBench) -> object:
    return bench.copies.stats()["shadows"]


async def test_a_full_memory_has_no_room_for_shadows() -> None:
    bench = CopiesBench(buffer_limit=4 * len(PAYLOAD))
    others = [await bench.started() for _ in range(3)]
    task = bench.run(SHADOW, "a", "b")
    await bench.published(4)
    await turns(20)
    assert shadows(bench) == {"sent": 0, "dropped": 1, "pending": 0}
    for number in range(4):
        bench.answer(number)
    await asyncio.gather(task, *others)
    await bench.assert_all_over()


async def test_shadows_are_bounded_in_number(bench: CopiesBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary that answers nothing does not take all of the edge; when it answers there are shadows again."""
    monkeypatch.setattr(shadow, "MOST", 2)
    for number in range(4):
        task = bench.run(SHADOW, "a", "b")
        await turns(20)
        bench.answer_to("a")
        await ended(task)
        assert shadows(bench) == {
            "sent": min(number + 1, 2),
            "dropped": max(number - 1, 0),
            "pending": min(number + 1, 2),
        }
    bench.answer_to("b")
    await until(lambda: len(bench.pending) == 1)
    task = bench.run(SHADOW, "a", "b")
    await turns(20)
    bench.answer_to("a")
    await ended(task)
    assert shadows(bench) == {"sent": 3, "dropped": 2, "pending": 2}
    for number, sent in enumerate(bench.broker.requests):
        if sent.key == "request.b":
            bench.answer(number)


async def test_what_comes_in_pieces_has_no_shadow(bench: CopiesBench) -> None:
    """And its primary loses nothing by it."""
    body = Pieces()
    task = bench.run(SHADOW, "a", "b", order=replace(ORDER, source=body))
    await bench.published(1)
    bench.reply(Kind.CLAIM, worker="w-a", credit=PLENTY)
    for piece in (b"one", None):
        body.queue.put_nowait(piece)
    await until(lambda: uploaded(bench, "w-a") == b"one")
    bench.answer_to("a")
    await ended(task)
    assert shadows(bench) == {"sent": 0, "dropped": 1, "pending": 0}


async def test_what_came_in_pieces_and_is_here_has_one(bench: CopiesBench) -> None:
    """It is read from what is kept for the primary, also when the primary is gone."""
    client, space = Client(), SpoolSpace(1000, 1000)
    order = await upload(client, space)
    assert order.source is not None
    client.send(b"abc", more=False)
    assert [piece async for piece in order.source.pieces()] == [b"abc"]
    task = bench.run(SHADOW, "a", "b", order=order)
    await bench.published(2)
    bench.answer_to("a")
    await ended(task)
    assert not space.take(1000)
    bench.reply(Kind.CLAIM, bench.number("b"), worker="w-b", credit=PLENTY)
    await until(lambda: uploaded(bench, "w-b") == b"abc")
    bench.answer_to("b")
    await until(lambda: space.take(1000))


async def test_a_canary_without_a_pool_is_asked_once(bench: CopiesBench) -> None:
    """To look for it again and again would be a load of its own."""
    bench.broker.verdicts.extend([Verdict.ROUTED] + [Verdict.UNROUTABLE] * 1000)
    task = bench.run(SHADOW, "a", "b")
    await bench.published(2)
    await until(lambda: bench.told_endings() == [(Leg.SHADOW, Reason.UNROUTABLE)])
    assert len(bench.broker.requests) == 2
    bench.answer_to("a")
    await ended(task)


async def test_a_stream_that_never_ends_makes_room_at_its_deadline(bench: CopiesBench) -> None:
    task = bench.run(SHADOW, "a", "b", order=replace(ORDER, timeout=0.1))
    await bench.published(2)
    bench.answer_to("a")
    await ended(task)
    bench.head_to("b")
    await turns()
    bench.piece_to("b", b"tick", more=True)
    await until(lambda: bench.cancels() == ["w-b"])
    (event,) = [sent.envelope for sent in bench.broker.told(Kind.ENDED)]
    assert (event.leg, event.reason, event.digest, event.size) == (Leg.SHADOW, Reason.WORKER_TIMEOUT, None, 9)


async def test_a_shadow_is_content_with_a_narrow_window(bench: CopiesBench) -> None:
    """No memory is set aside for it beyond its request."""
    task = bench.run(SHADOW, "a", "b")
    await bench.published(2)
    bench.answer_to("a")
    await ended(task)
    bench.head_to("b")
    await turns()
    assert bench.pending._bytes == len(PAYLOAD) < FIRST_WINDOW
    bench.piece_to("b", b"end")


async def test_a_shadow_that_breaks_has_no_digest(bench: CopiesBench) -> None:
    task = bench.run(SHADOW, "a", "b")
    await bench.published(2)
    bench.answer_to("a")
    await ended(task)
    bench.head_to("b")
    await turns()
    bench.reply(Kind.BODY, bench.number("b"), worker="w-b", sequence=1, more=False, reason=Reason.APP_ERROR)
    await until(lambda: bench.told_endings() == [(Leg.SHADOW, Reason.APP_ERROR)])
    assert bench.broker.told(Kind.ENDED)[0].envelope.digest is None


async def test_a_client_that_is_gone_at_once_has_no_shadow(bench: CopiesBench) -> None:
    route = Route("r", Match(), SHADOW, ("a", "b"))
    order = replace(ORDER, key="a")
    ending = await bench.copies.run(order, route, ("a", "b"), lambda departure: departure.client_left())
    assert ending.reason is Reason.CLIENT_GONE
    await turns(20)
    assert shadows(bench) == {"sent": 0, "dropped": 0, "pending": 0}
    assert bench.broker.requests == []


async def test_the_client_leaves_and_the_shadow_goes_on(bench: CopiesBench) -> None:
    task = bench.run(SHADOW, "a", "b")
    await bench.published(2)
    bench.departure.client_left()
    assert (await ended(task)).reason is Reason.CLIENT_GONE
    bench.answer_to("b")
    await until(lambda: shadows(bench) == {"sent": 1, "dropped": 0, "pending": 0})
    assert bench.told_endings() == [(Leg.PRIMARY, Reason.CLIENT_GONE)]


async def test_shadows_end_with_the_edge(bench: CopiesBench) -> None:
    """Whose loop cancels what is left: a stream of a shadow, too."""
    task = bench.run(SHADOW, "a", "b", "c")
    await bench.published(3)
    bench.answer_to("a")
    await ended(task)
    bench.head_to("b")
    await turns(20)
    for left in list(bench.copies._shadows._tasks):
        left.cancel()
    await until(lambda: not len(bench.pending))
    assert set(bench.told_endings()) == {(Leg.SHADOW, Reason.CLIENT_GONE)}


async def test_only_what_is_compared_is_digested(bench: CopiesBench) -> None:
    """The primary of a shadow, and no other."""
    for policy, expected in ((SHADOW, True), (Policy(mode=Mode.SHADOW, sample=1e-12), False), (Policy(), False)):
        task = bench.run(policy, "a", "b")
        await turns(20)
        bench.head_to("a")
        ending = await ended(task)
        assert ending.stream is not None
        assert ending.stream.order.digested is expected
        bench.pending.close(ending, None, 5)
    bench.answer_to("b")
