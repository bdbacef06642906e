"""Uploads of pending requests: fed under credit, repeated from their start, and every way they end."""

from dataclasses import replace

import pytest

from rabbitbal.edge import carrier, publishing
from rabbitbal.edge.spool import SpoolSpace
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.flow import FIRST_WINDOW, OVERHEAD
from rabbitbal.wire.reasons import Reason
from tests.edge_bench import PAYLOAD, Bench, Client, ended, turns, until, uploaded

PLENTY = 1 << 40


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.005)
    monkeypatch.setattr(carrier, "RETRY_PERIOD", 0.005)
    return Bench()


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def space() -> SpoolSpace:
    return SpoolSpace(1000, 1000)


async def test_an_upload_is_announced_and_waits_for_its_claim(bench: Bench, client: Client) -> None:
    """The head says that more follows, and how much of a streamed answer is taken."""
    task = await bench.started(await uploaded(client))
    envelope = bench.broker.requests[0].envelope
    assert (envelope.more, envelope.credit, bench.broker.requests[0].body[-5:]) == (True, FIRST_WINDOW, b"first")
    client.send(b"abc")
    await turns(20)
    assert bench.pieces() == []
    bench.answer()
    assert (await ended(task)).reason is None
    bench.assert_forgotten()


async def test_a_whole_request_says_nothing_of_more(bench: Bench) -> None:
    task = await bench.started()
    assert bench.broker.requests[0].envelope.more is None
    bench.reply(Kind.CLAIM, credit=PLENTY)
    await turns()
    assert bench.pieces() == []
    bench.answer()
    await ended(task)


async def test_a_claimed_upload_is_fed_under_its_credit(bench: Bench, client: Client) -> None:
    """As the client sends; the last message has no payload."""
    task = await bench.started(await uploaded(client))
    client.send(b"abcdef")
    client.send(b"g", more=False)
    bench.reply(Kind.CLAIM, credit=OVERHEAD + 4)
    await until(lambda: len(bench.pieces()) == 1)
    await turns()
    assert bench.pieces() == [(1, 1, b"abcd", True, None)]
    bench.reply(Kind.CREDIT, credit=PLENTY)
    await until(lambda: len(bench.pieces()) == 4)
    assert bench.pieces()[1:] == [(1, 2, b"ef", True, None), (1, 3, b"g", True, None), (1, 4, b"", False, None)]
    bench.answer()
    await ended(task)
    bench.assert_forgotten()


async def test_credit_of_a_stranger_or_of_another_attempt_counts_for_nothing(bench: Bench, client: Client) -> None:
    task = await bench.started(await uploaded(client))
    client.send(b"abc", more=False)
    bench.reply(Kind.CREDIT, credit=PLENTY)
    bench.reply(Kind.CLAIM, credit=0)
    bench.reply(Kind.CREDIT, credit=PLENTY, worker="worker-2")
    bench.reply(Kind.CREDIT, credit=PLENTY, attempt=2)
    await turns(20)
    assert bench.pieces() == []
    bench.answer()
    await ended(task)
    bench.reply(Kind.CREDIT, credit=PLENTY)
    bench.assert_forgotten()


async def test_a_second_claim_of_an_attempt_changes_nothing(bench: Bench, client: Client) -> None:
    task = await bench.started(await uploaded(client))
    client.send(b"abc")
    for worker in ("worker-1", "worker-1", "worker-2"):
        bench.reply(Kind.CLAIM, credit=PLENTY, worker=worker)
    await until(bench.pieces)
    await turns(20)
    assert (len(bench.pieces()), bench.pieces("worker-2")) == (1, [])
    bench.answer()
    await ended(task)


# --- time, the client, limits


async def test_the_deadline_moves_on_with_the_upload(bench: Bench, client: Client) -> None:
    """It counts from the last progress, also of the end."""
    task = await bench.started(await uploaded(client, timeout=0.2))
    ticket = bench.tickets[0]
    bench.reply(Kind.CLAIM, credit=PLENTY)
    for more in (True, False):
        before = ticket.deadline
        client.send(b"a", more=more)
        await until(lambda: ticket.deadline > before)  # noqa: B023 - used up before the next turn
    ending = await ended(task)
    assert ending.reason is Reason.WORKER_TIMEOUT
    assert ending.total >= ticket.deadline - ticket.started > 0.2
    assert bench.cancels() == ["worker-1"]
    bench.assert_forgotten()


async def test_an_upload_that_its_worker_does_not_read_ends_with_worker_timeout(bench: Bench, client: Client) -> None:
    task = await bench.started(await uploaded(client, timeout=0.05))
    client.send(b"a")
    bench.reply(Kind.CLAIM, credit=0)
    assert (await ended(task)).reason is Reason.WORKER_TIMEOUT
    bench.assert_forgotten()


async def test_an_upload_that_nobody_took_ends_with_queue_timeout(bench: Bench, client: Client) -> None:
    task = await bench.started(await uploaded(client, timeout=0.05))
    assert (await ended(task)).reason is Reason.QUEUE_TIMEOUT
    bench.assert_forgotten()


@pytest.mark.parametrize("blocked", [False, True])
async def test_a_client_that_leaves_in_its_upload_ends_it(bench: Bench, client: Client, blocked: bool) -> None:
    """Whether it is being read, or waits for credit, when only the connection can tell."""
    task = await bench.started(await uploaded(client))
    client.send(b"a")
    bench.reply(Kind.CLAIM, credit=0 if blocked else PLENTY)
    await turns(20)
    if blocked:
        bench.tickets[0].client_left()
    else:
        client.leave()
    assert (await ended(task)).reason is Reason.CLIENT_GONE
    assert bench.cancels() == ["worker-1"]
    bench.assert_forgotten()


async def test_a_body_that_turns_out_too_large_ends_the_request(bench: Bench, client: Client) -> None:
    """Its worker is told to stop; it never gets an end that looks whole."""
    task = await bench.started(await uploaded(client, limit=10))
    bench.reply(Kind.CLAIM, credit=PLENTY)
    client.send(b"a" * 5)
    client.send(b"b", more=False)
    ending = await ended(task)
    assert (ending.reason, ending.response.status, bench.cancels()) == (Reason.BODY_TOO_LARGE, 413, ["worker-1"])
    assert bench.pieces() == [(1, 1, b"a" * 5, True, None)]
    (event,) = bench.broker.told(Kind.ENDED)
    assert (event.envelope.reason, event.envelope.status) == (Reason.BODY_TOO_LARGE, 413)
    bench.assert_forgotten()


async def test_an_error_that_nobody_expected_in_an_upload_is_an_edge_error(bench: Bench, client: Client) -> None:
    task = await bench.started(await uploaded(client))
    bench.broker.on_streams[Kind.BODY].append(ZeroDivisionError())
    client.send(b"a", more=False)
    bench.reply(Kind.CLAIM, credit=PLENTY)
    assert (await ended(task)).reason is Reason.EDGE_ERROR
    bench.assert_forgotten()


async def test_a_refused_upload_gives_its_space_back(client: Client, space: SpoolSpace) -> None:
    """It was never pending."""
    bench = Bench(buffer_limit=len(PAYLOAD))
    order = await uploaded(client, space)
    client.send(b"a" * 100)
    assert await anext(order.source.pieces()) == b"a" * 100  # type: ignore[union-attr]
    assert (await ended(bench.start(order))).reason is Reason.OVERLOADED
    assert space.take(1000)
    bench.assert_forgotten()


async def test_an_upload_counts_its_reserve_against_the_limit(client: Client) -> None:
    """What it may have between the client and the broker."""
    order = await uploaded(client)
    bench = Bench(buffer_limit=len(order.payload) + 10)
    assert (await ended(bench.start(replace(order, reserve=11)))).reason is Reason.OVERLOADED
    task = await bench.started(replace(order, reserve=10))
    assert not bench.pending.hold(1)
    bench.answer()
    await ended(task)
    bench.assert_forgotten()


async def test_a_cancel_for_an_unclaimed_upload_goes_to_every_worker(bench: Bench, client: Client) -> None:
    task = await bench.started(await uploaded(client))
    bench.tickets[0].client_left()
    await ended(task)
    assert bench.cancels() == [topology.EVERY_WORKER]
