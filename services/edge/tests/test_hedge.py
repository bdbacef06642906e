"""Late requests are sent once more."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rabbitbal.edge import publishing
from rabbitbal.edge.copies import hedge
from rabbitbal.edge.copies.latency import ENOUGH
from rabbitbal.edge.spool import SpoolSpace
from rabbitbal.edge.ticket import Ticket
from rabbitbal.routes.match import Match
from rabbitbal.routes.policy import Hedge, Policy
from rabbitbal.routes.table import Route
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import Response, encode_response
from rabbitbal.wire.reasons import Reason, error_response
from tests.copies_bench import BAD, HEAD, PLENTY, CopiesBench, uploaded
from tests.edge_bench import OK, ONCE, ORDER, Client, ended, turns, until
from tests.edge_bench import uploaded as upload


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CopiesBench]:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.005)
    bench = CopiesBench()
    yield bench
    await bench.assert_all_over()


def hedged(after: float | None, budget: float = 1.0) -> Policy:
    return Policy(hedge=Hedge(budget, after))


async def test_a_late_request_is_sent_again(bench: CopiesBench) -> None:
    task = bench.run(hedged(0.01), "a")
    await bench.published(2)
    legs = [(sent.key, sent.envelope.leg) for sent in bench.broker.requests]
    assert legs == [("request.a", Leg.PRIMARY), ("request.a", Leg.HEDGE)]
    bench.answer_to("a", worker="w-2")
    assert (await ended(task)).worker == "w-2"
    hedges = bench.copies.stats()["hedges"]
    assert isinstance(hedges, dict)
    assert (hedges["requests"], hedges["sent"], hedges["won"], hedges["refused"]) == (1, 1, 1, 0)


async def test_a_quick_one_is_not(bench: CopiesBench) -> None:
    task = bench.run(hedged(5.0), "a")
    await bench.published(1)
    bench.answer_to("a")
    await ended(task)
    assert len(bench.broker.requests) == 1


async def test_what_may_not_run_twice_is_not_hedged(bench: CopiesBench) -> None:
    task = bench.run(hedged(0.001), "a", order=replace(ONCE, timeout=0.05))
    assert (await ended(task)).reason is Reason.QUEUE_TIMEOUT
    assert len(bench.broker.requests) == 1


async def test_beyond_the_budget_nothing_is_sent(bench: CopiesBench) -> None:
    for number in range(3):
        task = bench.run(hedged(0.001, budget=0.001), "a", order=replace(ORDER, timeout=0.05))
        await ended(task)
        # One token is there to begin with.
        assert len(bench.broker.requests) == number + 2
    hedges = bench.copies.stats()["hedges"]
    assert isinstance(hedges, dict)
    assert (hedges["sent"], hedges["refused"]) == (1, 2)


async def test_a_lost_primary_is_still_answered_by_its_hedge(bench: CopiesBench) -> None:
    """A primary that ends badly waits for the other."""
    task = bench.run(hedged(0.01), "a")
    await bench.published(2)
    first = bench.broker.requests[0].envelope
    said = Envelope(Kind.RESPONSE, first.correlation_id, "w-1", reason=Reason.APP_ERROR)
    bench.pending.reply(said, encode_response(error_response(Reason.APP_ERROR)))
    await turns(20)
    assert not task.done()
    bench.answer_to("a")
    assert (await ended(task)).reason is None


PRIMARY, SECOND = 0, 1


def figures(bench: CopiesBench) -> tuple[int, int, int, int]:
    """Requests, hedges sent, won, and refused."""
    hedges = bench.copies.stats()["hedges"]
    assert isinstance(hedges, dict)
    return hedges["requests"], hedges["sent"], hedges["won"], hedges["refused"]


def answer(bench: CopiesBench, number: int, response: Response = OK, *, more: bool = False) -> None:
    payload = encode_response(response, more=more)
    bench.reply(Kind.RESPONSE, number, worker=f"w-{number}", payload=payload, more=more or None)


async def test_a_good_answer_of_the_first_ends_the_second(bench: CopiesBench) -> None:
    """Whose worker is cancelled if it has said that it runs it, and else when it does."""
    for claimed in (True, False):
        bench.broker.notices.clear()
        bench.broker.requests.clear()
        task = bench.run(hedged(0.01), "a")
        await bench.published(2)
        if claimed:
            bench.reply(Kind.CLAIM, SECOND, worker="w-1")
        answer(bench, PRIMARY)
        assert (await ended(task)).worker == "w-0"
        await until(lambda: bench.told_endings() == [(Leg.HEDGE, Reason.SUPERSEDED)])
        assert bench.cancels() == (["w-1"] if claimed else [])
    assert figures(bench) == (2, 2, 0, 0)


async def test_a_good_answer_of_the_second_ends_the_first(bench: CopiesBench) -> None:
    """A first that nobody has claimed is not cancelled by a broadcast either."""
    for claimed in (True, False):
        bench.broker.notices.clear()
        bench.broker.requests.clear()
        task = bench.run(hedged(0.01), "a")
        await bench.published(2)
        if claimed:
            bench.reply(Kind.CLAIM, PRIMARY, worker="w-0")
        answer(bench, SECOND)
        assert (await ended(task)).worker == "w-1"
        await until(lambda: bench.told_endings() == [(Leg.PRIMARY, Reason.SUPERSEDED)])
        assert bench.cancels() == (["w-0"] if claimed else [])
    assert figures(bench) == (2, 2, 2, 0)


async def test_both_at_once_are_one_answer(bench: CopiesBench) -> None:
    task = bench.run(hedged(0.01), "a")
    await bench.published(2)
    answer(bench, SECOND)
    answer(bench, PRIMARY)
    assert (await ended(task)).worker == "w-0"
    assert bench.told_endings() == []


@pytest.mark.parametrize("late", [PRIMARY, SECOND])
async def test_the_stream_of_one_goes_on_and_that_of_the_other_is_cancelled(bench: CopiesBench, late: int) -> None:
    task = bench.run(hedged(0.01), "a")
    await bench.published(2)
    soon = 1 - late
    answer(bench, soon, HEAD, more=True)
    await turns(20)
    answer(bench, late, HEAD, more=True)
    ending = await ended(task)
    assert ending.stream is not None
    await until(lambda: bench.cancels() == [f"w-{late}"])
    bench.reply(Kind.BODY, soon, worker=f"w-{soon}", payload=b"end", sequence=1, more=False)
    assert await ending.stream.read() == b"end"
    assert await ending.stream.read() == b""
    bench.pending.close(ending, None, 8)


async def test_a_bad_stream_of_the_first_is_closed_for_a_good_second(bench: CopiesBench) -> None:
    task = bench.run(hedged(0.01), "a")
    await bench.published(2)
    answer(bench, PRIMARY, replace(HEAD, status=503), more=True)
    await turns(20)
    assert not task.done()
    answer(bench, SECOND)
    assert (await ended(task)).worker == "w-1"
    await until(lambda: bench.cancels() == ["w-0"])


async def test_of_two_bad_answers_an_applications_counts(bench: CopiesBench) -> None:
    for responses, expected in (((None, BAD), "w-1"), ((BAD, None), "w-0"), ((BAD, BAD), "w-0")):
        bench.broker.requests.clear()
        task = bench.run(hedged(0.01), "a")
        await bench.published(2)
        for number, response in enumerate(responses):
            reason = Reason.APP_ERROR if response is None else None
            payload = encode_response(response or error_response(Reason.APP_ERROR))
            bench.reply(Kind.RESPONSE, number, worker=f"w-{number}", payload=payload, reason=reason)
            await turns()
        ending = await ended(task)
        assert (ending.worker, ending.response) == (expected, BAD)


async def test_the_second_has_no_later_deadline_than_the_first(bench: CopiesBench) -> None:
    """A client waits no longer because its request was sent twice."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    task = bench.run(hedged(0.15), "a", order=replace(ORDER, timeout=0.2))
    await bench.published(2)
    first, second = (sent.envelope for sent in bench.broker.requests)
    assert abs((first.deadline or 0) - (second.deadline or 0)) < 30
    assert (await ended(task)).reason is Reason.QUEUE_TIMEOUT
    assert loop.time() - started < 0.3


async def test_what_has_not_reached_a_queue_is_not_sent_twice(bench: CopiesBench) -> None:
    """It is not late because of a worker."""
    confirm: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    bench.broker.verdicts.append(confirm)
    task = bench.run(hedged(0.01), "a", order=replace(ORDER, timeout=0.1))
    assert (await ended(task)).reason is Reason.QUEUE_TIMEOUT
    assert (len(bench.broker.requests), figures(bench)) == (1, (1, 0, 0, 0))


async def test_the_client_leaves_both(bench: CopiesBench) -> None:
    task = bench.run(hedged(0.01), "a")
    await bench.published(2)
    for number in (PRIMARY, SECOND):
        bench.reply(Kind.CLAIM, number, worker=f"w-{number}")
    bench.departure.client_left()
    assert (await ended(task)).reason is Reason.CLIENT_GONE
    await until(lambda: sorted(bench.cancels()) == ["w-0", "w-1"])


async def test_the_client_leaves_before_it_is_late(bench: CopiesBench) -> None:
    task = bench.run(hedged(5.0), "a")
    await bench.published(1)
    bench.departure.client_left()
    assert (await ended(task)).reason is Reason.CLIENT_GONE
    await until(lambda: bench.cancels() == ["*"])


@pytest.mark.parametrize("where", ["both wait", "the first is bad"])
async def test_both_end_with_the_edge(bench: CopiesBench, where: str) -> None:
    task = bench.run(hedged(0.01), "a")
    await bench.published(2)
    if where == "the first is bad":
        answer(bench, PRIMARY, replace(HEAD, status=503), more=True)
    await turns(20)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_defect_of_the_second_costs_the_first_nothing(
    bench: CopiesBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the log, and the client has its answer."""
    send = bench.pending._publishing.send

    def failing(ticket: Ticket) -> None:
        if ticket.order.leg is Leg.HEDGE:
            raise ZeroDivisionError
        send(ticket)

    monkeypatch.setattr(bench.pending._publishing, "send", failing)
    task = bench.run(hedged(0.001), "a")
    await until(lambda: bench.told_endings() == [(Leg.HEDGE, Reason.CLIENT_GONE)])
    answer(bench, PRIMARY)
    assert (await ended(task)).reason is None


@pytest.mark.parametrize("whole", [True, False])
async def test_a_body_in_pieces_is_sent_twice_if_it_is_here(bench: CopiesBench, whole: bool) -> None:
    """Nobody waits for one that is still coming."""
    client, space = Client(), SpoolSpace(1000, 1000)
    task = bench.run(hedged(0.05), "a", order=await upload(client, space))
    await bench.published(1)
    bench.reply(Kind.CLAIM, PRIMARY, worker="w-0", credit=PLENTY)
    client.send(b"abc", more=not whole)
    await until(lambda: uploaded(bench, "w-0") == b"abc")
    if whole:
        await bench.published(2)
        bench.reply(Kind.CLAIM, SECOND, worker="w-1", credit=PLENTY)
        await until(lambda: uploaded(bench, "w-1") == b"abc")
        answer(bench, SECOND)
    else:
        loop = asyncio.get_running_loop()
        later = loop.time() + 0.1
        await until(lambda: loop.time() > later)
        answer(bench, PRIMARY)
    await ended(task)
    assert figures(bench) == (1, int(whole), int(whole), 0)
    await until(lambda: space.take(1000))


async def test_nothing_is_late_until_a_hundred_answers_are_known(bench: CopiesBench) -> None:
    """Then by what they took."""
    for _ in range(ENOUGH):
        task = bench.run(hedged(None), "a")
        await until(lambda: len(bench.pending))
        await turns()
        assert len(bench.broker.requests) == 1
        answer(bench, PRIMARY)
        await ended(task)
        bench.broker.requests.clear()
    task = bench.run(hedged(None), "a")
    await bench.published(2)
    answer(bench, SECOND)
    assert (await ended(task)).worker == "w-1"
    assert figures(bench) == (ENOUGH + 1, 1, 1, 0)


@pytest.mark.parametrize(("budget", "late"), [(0.10, 0.95), (0.05, 0.95), (0.03, 0.97), (0.01, 0.99)])
async def test_no_more_are_late_than_may_be_sent_twice(bench: CopiesBench, budget: float, late: float) -> None:
    """Else the budget is gone when the latest come."""
    route = Route("r", Match(), hedged(None, budget), ("a",))
    task = asyncio.ensure_future(bench.copies.run(replace(ORDER, key="a"), route, ("a",), lambda _: None))
    await bench.published(1)
    answer(bench, PRIMARY)
    await ended(task)
    assert bench.copies._hedges._of("r").latency.quantile == pytest.approx(late)


async def test_routes_that_are_not_used_are_forgotten(bench: CopiesBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was used least recently goes first."""
    monkeypatch.setattr(hedge, "MOST_ROUTES", 2)
    for name in ("one", "two", "one", "three"):
        bench.broker.requests.clear()
        route = Route(name, Match(), hedged(5.0), ("a",))
        task = asyncio.ensure_future(bench.copies.run(replace(ORDER, key="a"), route, ("a",), lambda _: None))
        await bench.published(1)
        answer(bench, PRIMARY)
        await ended(task)
    hedges = bench.copies.stats()["hedges"]
    assert isinstance(hedges, dict)
    assert list(hedges["late_seconds"]) == ["one", "three"]
