"""One request to several workers: who wins, who is told, what is left. The test is the workers."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from email import message_from_bytes
from email.policy import HTTP

import pytest

from rabbitbal.edge import pending as module
from rabbitbal.edge.copies import Copies
from rabbitbal.edge.copies.budget import MOST_SAVED, Budget
from rabbitbal.edge.copies.group import Group
from rabbitbal.edge.copies.latency import ENOUGH, MEMORY, Latency
from rabbitbal.edge.spool import SpoolSpace
from rabbitbal.edge.ticket import Ending, Order
from rabbitbal.edge.upload import ClientGone
from rabbitbal.routes.match import Match
from rabbitbal.routes.policy import Hedge, Mode, Policy
from rabbitbal.routes.table import Route
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import Response, encode_response
from rabbitbal.wire.reasons import Reason, error_response
from tests.edge_bench import OK, ONCE, ORDER, Bench, ended, turns, until

BAD = Response(500, [(b"Content-Length", b"3")], b"bad")
HEAD = Response(200, [(b"Content-Type", b"text/plain")], b"first")


class CopiesBench(Bench):
    """Carries requests by routes."""

    def __init__(self, max_pending: int = 10, buffer_limit: int = 1 << 20, spool: int = 1 << 20) -> None:
        super().__init__(max_pending, buffer_limit)
        self.copies = Copies(self.pending, SpoolSpace(spool, spool))
        self.departure: object = None

    def run(self, policy: Policy, *keys: str, order: Order = ORDER) -> "asyncio.Task[Ending]":
        route = Route("r", Match(), policy, keys)

        def begin(departure: object) -> None:
            self.departure = departure

        order = replace(order, key=keys[0])
        return asyncio.ensure_future(self.copies.run(order, route, keys, begin))

    async def published(self, number: int) -> None:
        await until(lambda: len(self.broker.requests) >= number)
        await turns()

    def number(self, key: str) -> int:
        """Of the newest publish with this key."""
        found = [number for number, sent in enumerate(self.broker.requests) if sent.key == f"request.{key}"]
        return found[-1]

    def answer_to(self, key: str, response: Response = OK, reason: Reason | None = None, worker: str = "") -> None:
        payload = encode_response(response)
        self.reply(Kind.RESPONSE, self.number(key), worker=worker or f"w-{key}", payload=payload, reason=reason)

    def head_to(self, key: str) -> None:
        payload = encode_response(HEAD, more=True)
        self.reply(Kind.RESPONSE, self.number(key), worker=f"w-{key}", payload=payload, more=True)

    def piece_to(self, key: str, body: bytes, sequence: int = 1, *, more: bool = False) -> None:
        self.reply(Kind.BODY, self.number(key), worker=f"w-{key}", payload=body, sequence=sequence, more=more)

    def told_endings(self) -> list[tuple[Leg | None, Reason | None]]:
        return [(sent.envelope.leg, sent.envelope.reason) for sent in self.broker.told(Kind.ENDED)]

    async def assert_all_over(self) -> None:
        await until(lambda: not self.pending._tickets and not self.pending._tasks and not Group._ending)
        self.assert_forgotten()


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CopiesBench]:
    monkeypatch.setattr(module, "RETRY_PERIOD", 0.005)
    bench = CopiesBench()
    yield bench
    await bench.assert_all_over()


FIRST = Policy(mode=Mode.FIRST)
ALL = Policy(mode=Mode.ALL)
SHADOW = Policy(mode=Mode.SHADOW)


def hedged(after: float | None, budget: float = 1.0) -> Policy:
    return Policy(hedge=Hedge(budget, after))


# --- one


async def test_mode_one_is_a_plain_request(bench: CopiesBench) -> None:
    task = bench.run(Policy(), "a")
    await bench.published(1)
    envelope = bench.broker.requests[0].envelope
    assert (envelope.leg, envelope.group) == (None, None)
    bench.answer_to("a")
    assert (await ended(task)).response == OK


async def test_an_upgrade_goes_to_the_first_key_alone(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b", order=replace(ORDER, upgrade="websocket"))
    await bench.published(1)
    bench.answer_to("a")
    await ended(task)
    assert [sent.key for sent in bench.broker.requests] == ["request.a"]


# --- first


async def test_copies_have_ids_of_their_own_and_a_group_in_common(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    one, other = (sent.envelope for sent in bench.broker.requests)
    assert {sent.key for sent in bench.broker.requests} == {"request.a", "request.b"}
    assert one.correlation_id != other.correlation_id
    assert one.group == other.group not in (one.correlation_id, other.correlation_id, None)
    assert one.leg is other.leg is Leg.FIRST
    bench.answer_to("a")
    assert (await ended(task)).worker == "w-a"


async def test_the_loser_is_superseded_and_nobody_is_told_who_has_not_claimed_it(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    assert (await ended(task)).worker == "w-b"
    await until(lambda: bench.told_endings() == [(Leg.FIRST, Reason.SUPERSEDED)])
    assert bench.cancels() == []
    # Its worker takes it later, claims it, and is told then.
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a")
    await until(lambda: bench.cancels() == ["w-a"])


async def test_the_loser_that_is_claimed_is_cancelled(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a")
    bench.answer_to("b")
    await ended(task)
    await until(lambda: bench.cancels() == ["w-a"])


async def test_two_good_answers_at_once_are_one(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("a")
    bench.answer_to("b")
    assert (await ended(task)).worker in ("w-a", "w-b")
    assert bench.told_endings() == []


async def test_a_bad_answer_waits_for_a_good_one(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("a", BAD)
    await turns(20)
    assert not task.done()
    bench.answer_to("b")
    assert (await ended(task)).worker == "w-b"


async def test_of_bad_answers_an_applications_counts(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b", "c")
    await bench.published(3)
    bench.answer_to("a", error_response(Reason.APP_ERROR), Reason.APP_ERROR)
    bench.answer_to("b", BAD)
    bench.answer_to("c", Response(503, [(b"Content-Length", b"0")]))
    ending = await ended(task)
    assert (ending.worker, ending.response.status, ending.reason) == ("w-b", 500, None)


async def test_one_that_cannot_be_published_is_one_that_failed(bench: CopiesBench) -> None:
    bench.broker.verdicts.extend([Verdict.REJECTED, Verdict.REJECTED])
    ending = await ended(bench.run(FIRST, "a", "b"))
    assert ending.reason is Reason.OVERLOADED


async def test_one_unroutable_and_one_good_is_good(bench: CopiesBench) -> None:
    bench.broker.verdicts.append(Verdict.REJECTED)
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    assert (await ended(task)).reason is None


async def test_all_frozen_end_at_the_deadline(bench: CopiesBench) -> None:
    ending = await ended(bench.run(FIRST, "a", "b", order=replace(ORDER, timeout=0.05)))
    assert ending.reason is Reason.QUEUE_TIMEOUT


async def test_the_client_leaves_all_copies(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.reply(Kind.CLAIM, bench.number("a"), worker="w-a")
    bench.departure.client_left()  # type: ignore[attr-defined]
    assert (await ended(task)).reason is Reason.CLIENT_GONE
    await until(lambda: bench.cancels() == ["w-a"])
    assert bench.pending.endings == {"client-gone": 2}


async def test_a_client_that_left_before_anything_began(bench: CopiesBench) -> None:
    task = bench.run(FIRST, "a", "b")
    await asyncio.sleep(0)
    bench.departure.client_left()  # type: ignore[attr-defined]
    assert (await ended(task)).reason is Reason.CLIENT_GONE


async def test_a_streamed_winner_and_a_streamed_loser(bench: CopiesBench) -> None:
    """The winner's stream goes on; the loser's is cancelled, though its head had come."""
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    bench.head_to("a")
    bench.head_to("b")
    ending = await ended(task)
    assert ending.stream is not None
    winner, loser = ("a", "b") if ending.worker == "w-a" else ("b", "a")
    await until(lambda: bench.cancels() == [f"w-{loser}"])
    bench.piece_to(winner, b"end")
    assert await ending.stream.read() == b"end"
    assert await ending.stream.read() == b""
    bench.pending.close(ending, None, 8)


async def test_a_task_that_is_cancelled_leaves_nothing(bench: CopiesBench) -> None:
    """The edge goes down."""
    task = bench.run(FIRST, "a", "b")
    await bench.published(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- bodies


class Pieces:
    """A body that the test sends."""

    repeatable = False

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = False

    async def pieces(self) -> AsyncIterator[bytes]:
        while (piece := await self.queue.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        self.closed = True


def uploaded(bench: CopiesBench, worker: str) -> bytes:
    return b"".join(piece[2] for piece in bench.pieces(worker))


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


# --- all


def parts_of(ending: Ending) -> list[tuple[str, str | None, str | None, bytes]]:
    """Key, pool and error of each part, and its message."""
    kind = next(value for name, value in ending.response.fields if name == b"Content-Type")
    message = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + ending.response.body, policy=HTTP)
    assert not message.defects
    found = []
    for part in message.iter_parts():
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        found.append((part["Rabbitbal-Key"], part["Rabbitbal-Pool"], part["Rabbitbal-Error"], payload))
    return found


async def test_all_answers_come_in_the_order_of_the_keys(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b", BAD)
    await turns(20)
    assert not task.done()
    bench.reply(Kind.RESPONSE, bench.number("a"), worker="w", payload=encode_response(OK), pool="north")
    ending = await ended(task)
    assert (ending.response.status, ending.reason, ending.fields) == (200, None, [])
    assert [part[:3] for part in parts_of(ending)] == [("a", "north", None), ("b", None, None)]
    assert parts_of(ending)[0][3] == encode_response(OK)
    assert parts_of(ending)[1][3] == encode_response(BAD)
    group = bench.broker.requests[0].envelope.group
    (event,) = [sent.envelope for sent in bench.broker.told(Kind.ENDED)]
    assert (event.correlation_id, event.status, event.reason, event.leg) == (group, 200, None, None)


async def test_a_part_that_failed_says_why(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b", order=replace(ORDER, timeout=0.1))
    await bench.published(2)
    bench.answer_to("a")
    ending = await ended(task)
    assert ending.fields == [(b"rabbitbal-failed", b"b")]
    assert [part[2] for part in parts_of(ending)] == [None, "queue-timeout"]
    assert parts_of(ending)[1][3].startswith(b"HTTP/1.1 504 ")


async def test_where_all_fail_the_answer_is_an_error(bench: CopiesBench) -> None:
    ending = await ended(bench.run(ALL, "a", "b", order=replace(ORDER, timeout=0.05)))
    assert (ending.response.status, ending.reason) == (504, Reason.QUEUE_TIMEOUT)


async def test_streamed_parts_are_collected(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    bench.head_to("a")
    await turns()
    bench.piece_to("a", b" and last")
    ending = await ended(task)
    assert parts_of(ending)[0][3].endswith(b"\r\n\r\nfirst and last")


async def test_a_streamed_part_that_breaks_is_an_error_of_its_own(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    bench.head_to("a")
    await turns()
    bench.reply(Kind.BODY, bench.number("a"), worker="w-a", sequence=1, more=False, reason=Reason.APP_ERROR)
    ending = await ended(task)
    assert [part[2] for part in parts_of(ending)] == ["app-error", None]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_part_beyond_its_limit_is_refused(bench: CopiesBench, streamed: bool) -> None:
    task = bench.run(Policy(mode=Mode.ALL, part_limit=4), "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    if streamed:
        bench.head_to("a")
    else:
        bench.answer_to("a", Response(200, [(b"Content-Length", b"5")], b"12345"))
    ending = await ended(task)
    assert [part[2] for part in parts_of(ending)] == ["bad-response", None]
    if streamed:
        await until(lambda: bench.cancels() == ["w-a"])


async def test_the_client_leaves_a_gathering(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("a")
    await turns()
    bench.departure.client_left()  # type: ignore[attr-defined]
    ending = await ended(task)
    assert [part[2] for part in parts_of(ending)] == [None, "client-gone"]


# --- shadow


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


# --- hedge


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


def test_a_budget_is_a_share() -> None:
    budget = Budget()
    spent = 0
    for _ in range(10_000):
        budget.earn(0.03)
        spent += budget.spend()
    assert 299 <= spent <= 302
    saver = Budget()
    for _ in range(10_000):
        saver.earn(0.03)
    assert sum(saver.spend() for _ in range(100)) == MOST_SAVED


def test_nothing_is_late_until_enough_is_known() -> None:
    latency = Latency()
    for _ in range(ENOUGH - 1):
        latency.add(0.1)
    assert latency.late() is None
    latency.add(0.1)
    assert latency.late() == pytest.approx(0.1, rel=0.06)


@pytest.mark.parametrize("scale", [0.0005, 0.02, 3.0])
def test_a_quantile_is_near_the_true_one(scale: float) -> None:
    samples = [scale * (1 + (number * 7919 % 1000) / 100) for number in range(2000)]
    latency = Latency()
    for sample in samples:
        latency.add(sample)
    true = sorted(samples)[int(len(samples) * 0.95)]
    assert true * 0.94 <= (latency.late() or 0) <= true * 1.06


def test_a_quantile_follows_what_changes() -> None:
    latency = Latency()
    for _ in range(10 * MEMORY):
        latency.add(0.01)
    for _ in range(3 * MEMORY):
        latency.add(1.0)
    assert (latency.late() or 0) == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize("strange", [0.0, -1.0, 1e-9, 1e9])
def test_strange_times_harm_nothing(strange: float) -> None:
    latency = Latency()
    for _ in range(ENOUGH):
        latency.add(strange)
    assert (latency.late() or 0) > 0
