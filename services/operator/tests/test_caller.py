"""A small edge: what it publishes, and every way in which a call ends. Without a broker: the test is the worker."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rabbitbal.operator import caller as caller_module
from rabbitbal.operator.caller import Answer, Caller
from rabbitbal.runtime.broker import Disconnected, Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.flow import CHUNK, FIRST_WINDOW
from rabbitbal.wire.message import Request, Response, decode_request, encode_response
from rabbitbal.wire.reasons import Reason

NAME = topology.replayer("abc123")
GET = Request("GET", b"/a", [(b"Host", b"h")])


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - polls what tells nobody
            await asyncio.sleep(0.005)


class Pool:
    """Takes what is published, and answers as a worker."""

    def __init__(self) -> None:
        self.verdict: Verdict | Exception = Verdict.ROUTED
        self.published: list[tuple[str, str, Envelope, bytes]] = []
        self.caller = Caller(NAME, "canary", self.publish)

    async def publish(
        self, exchange: str, key: str, envelope: Envelope, body: bytes = b"", *, timeout: float
    ) -> Verdict:
        self.published.append((exchange, key, envelope, body))
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def call(self, request: Request = GET, *, repeatable: bool = True, timeout: float = 5.0) -> "asyncio.Task[Answer]":
        return asyncio.ensure_future(self.caller.call(request, repeatable=repeatable, timeout=timeout))

    async def taken(self, number: int = 1) -> Envelope:
        """The envelope of the newest request, once so many were published."""
        await eventually(lambda: len(self.all(Kind.REQUEST)) >= number)
        return self.all(Kind.REQUEST)[-1][2]

    def all(self, kind: Kind) -> list[tuple[str, str, Envelope, bytes]]:
        return [each for each in self.published if each[2].kind is kind]

    def say(self, kind: Kind, to: Envelope, payload: bytes = b"", worker: str = "w-1", **more: Any) -> None:
        envelope = Envelope(kind, to.correlation_id, worker, attempt=more.pop("attempt", to.attempt), **more)
        self.caller.take(envelope, payload)

    def answer(self, to: Envelope, response: Response, **more: Any) -> None:
        payload = encode_response(response, more=bool(more.get("more")))
        self.say(Kind.RESPONSE, to, payload, duration=1500, **more)


@pytest.fixture
def pool() -> Pool:
    return Pool()


OK = Response(200, [(b"Content-Length", b"2")], b"ok")


async def test_a_request_goes_to_its_pool_and_its_answer_comes_back(pool: Pool) -> None:
    """By the pool's exchange, with all that a worker needs. A whole answer is an ending: there is no other."""
    call = pool.call()
    envelope = await pool.taken()
    exchange, key, _, payload = pool.published[0]
    assert (exchange, key) == ("rabbitbal.pool.canary", "request.replay")
    assert decode_request(payload) == GET
    assert (envelope.app_id, envelope.reply_to, envelope.route) == (NAME, f"response.{NAME}", "replay")
    assert (envelope.expiration, envelope.repeatable, envelope.leg) == (5000, True, None)
    assert envelope.deadline is not None
    assert envelope.sent is not None
    pool.answer(envelope, OK)
    answer = await call
    assert (answer.reason, answer.response, answer.size, answer.app_ms, answer.worker) == (None, OK, 2, 1.5, "w-1")
    await pool.caller.settled()
    assert len(pool.published) == 1


async def test_what_it_publishes_its_user_may_publish(pool: Pool) -> None:
    """Every exchange and key, by the permissions of the role."""
    rights = topology.ROLES[topology.REPLAY]
    call = pool.call(timeout=0.05)
    envelope = await pool.taken()
    pool.say(Kind.CLAIM, envelope)
    await call
    streamed = pool.call()
    pool.answer(await pool.taken(2), Response(200), more=True)
    streamed.cancel()
    await asyncio.wait({streamed})
    await pool.caller.settled()
    assert {each[2].kind for each in pool.published} == {Kind.REQUEST, Kind.CANCEL, Kind.ENDED}
    for exchange, key, *_ in pool.published:
        assert re.search(rights.write, exchange), exchange
        assert exchange not in rights.topics or re.search(rights.topics[exchange][0], key), key


async def test_a_streamed_answer_is_put_together(pool: Pool) -> None:
    """Under credit that is granted as it is read; the tap is told of its end, as a head says nothing of it."""
    call = pool.call()
    envelope = await pool.taken()
    pieces = [bytes([number]) * 30_000 for number in range(6)]
    pool.answer(envelope, Response(200, [], b"head"), more=True)
    spent = 0
    for number, piece in enumerate(pieces, 1):
        spent += len(piece) + 256
        await eventually(lambda: spent <= max([FIRST_WINDOW, *(e[2].credit or 0 for e in pool.all(Kind.CREDIT))]))  # noqa: B023
        pool.say(Kind.BODY, envelope, piece, sequence=number, more=True)
    pool.say(Kind.BODY, envelope, sequence=7, more=False, duration=9000)
    answer = await call
    body = b"head" + b"".join(pieces)
    assert answer.response is not None
    assert (answer.response.body, answer.size) == (body, len(body))
    assert (answer.sha256, answer.app_ms) == (hashlib.sha256(body).hexdigest(), 1.5)
    await pool.caller.settled()
    ((exchange, key, ended, _),) = pool.all(Kind.ENDED)
    assert (exchange, key) == (topology.EVENTS, f"ended.{NAME}")
    assert (ended.reason, ended.status, ended.size, ended.route) == (None, 200, len(body), "replay")
    assert {each[1] for each in pool.all(Kind.CREDIT)} == {"w-1"}
    assert not pool.all(Kind.CANCEL)


async def test_of_a_large_body_the_beginning_is_kept(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_module, "KEPT", 10)
    call = pool.call()
    envelope = await pool.taken()
    pool.answer(envelope, Response(200, [], b"12345678"), more=True)
    pool.say(Kind.BODY, envelope, b"90abcdef", sequence=1, more=False)
    answer = await call
    assert answer.response is not None
    assert (answer.response.body, answer.size) == (b"1234567890", 16)
    assert answer.sha256 == hashlib.sha256(b"1234567890abcdef").hexdigest()


async def test_a_request_that_nobody_takes_ends_at_its_deadline(pool: Pool) -> None:
    """No worker starts it then, so nobody is told to stop; the tap is told how it ended."""
    answer = await pool.call(timeout=0.05)
    assert (answer.reason, answer.response, answer.worker) == (Reason.QUEUE_TIMEOUT, None, None)
    await pool.caller.settled()
    assert [each[2].reason for each in pool.all(Kind.ENDED)] == [Reason.QUEUE_TIMEOUT]
    assert not pool.all(Kind.CANCEL)


async def test_a_worker_that_takes_too_long_is_told_to_stop(pool: Pool) -> None:
    call = pool.call(timeout=0.05)
    pool.say(Kind.CLAIM, await pool.taken(), worker="w-7")
    assert (await call).reason is Reason.WORKER_TIMEOUT
    await pool.caller.settled()
    assert [(each[0], each[1]) for each in pool.all(Kind.CANCEL)] == [(topology.STREAMS, "w-7")]


async def test_a_call_that_is_given_up_is_cancelled_at_its_worker(pool: Pool) -> None:
    """At the one that has claimed it, or streams the answer; else whoever has it, or will have it, is told."""
    for number, prepare in enumerate(("queue", "claim", "stream"), 1):
        call = pool.call()
        envelope = await pool.taken(number)
        if prepare == "claim":
            pool.say(Kind.CLAIM, envelope)
        elif prepare == "stream":
            pool.answer(envelope, Response(200), more=True)
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await pool.caller.settled()
    assert [each[1] for each in pool.all(Kind.CANCEL)] == [topology.EVERY_WORKER, "w-1", "w-1"]
    assert [each[2].reason for each in pool.all(Kind.ENDED)] == [Reason.CLIENT_GONE] * 3


async def test_a_lost_worker_s_request_is_published_again(pool: Pool) -> None:
    """As the next attempt, where it may run twice. A notice that comes twice counts once; the third loss is poison."""
    call = pool.call()
    first = await pool.taken()
    pool.say(Kind.REDELIVERED, first)
    second = await pool.taken(2)
    pool.say(Kind.REDELIVERED, first)
    assert (second.attempt, second.correlation_id) == (2, first.correlation_id)
    pool.answer(second, OK)
    assert ((await call).response, (await call).attempt) == (OK, 2)

    call = pool.call()
    for number in (3, 4, 5):
        pool.say(Kind.REDELIVERED, await pool.taken(number))
    assert (await call).reason is Reason.POISON


async def test_what_may_not_run_twice_ends_with_its_worker(pool: Pool) -> None:
    call = pool.call(Request("POST", b"/"), repeatable=False)
    pool.say(Kind.REDELIVERED, await pool.taken())
    assert (await call).reason is Reason.WORKER_LOST
    assert len(pool.all(Kind.REQUEST)) == 1


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (Verdict.REJECTED, Reason.OVERLOADED),
        (Verdict.UNROUTABLE, Reason.UNROUTABLE),
        (Disconnected("gone", sent=True), Reason.BROKER_DOWN),
    ],
)
async def test_what_no_queue_takes_ends_at_once(pool: Pool, verdict: Verdict | Exception, reason: Reason) -> None:
    pool.verdict = verdict
    assert (await pool.call()).reason is reason


async def test_a_lost_broker_ends_what_is_in_flight(pool: Pool) -> None:
    """Whether it waits for an answer or for the rest of one."""
    one = pool.call()
    await pool.taken()
    other = pool.call()
    pool.answer(await pool.taken(2), Response(200), more=True)
    await asyncio.sleep(0.01)
    pool.caller.lost()
    assert [(await call).reason for call in (one, other)] == [Reason.BROKER_DOWN] * 2


async def test_a_workers_error_is_no_answer(pool: Pool) -> None:
    """In a whole response, and in the middle of a streamed one."""
    call = pool.call()
    pool.answer(await pool.taken(), Response(500, [(b"Content-Length", b"1")], b"!"), reason=Reason.APP_ERROR)
    assert ((await call).reason, (await call).response) == (Reason.APP_ERROR, None)
    call = pool.call()
    envelope = await pool.taken(2)
    pool.answer(envelope, Response(200), more=True)
    pool.say(Kind.BODY, envelope, sequence=1, more=False, reason=Reason.APP_ERROR)
    assert ((await call).reason, (await call).response) == (Reason.APP_ERROR, None)


async def test_nonsense_ends_its_request(pool: Pool) -> None:
    """A response that is no HTTP, one that is not whole, and a piece that does not continue the body."""
    call = pool.call()
    with pytest.raises(WireError):
        pool.say(Kind.RESPONSE, await pool.taken(), b"nonsense")
    assert (await call).reason is Reason.BAD_RESPONSE
    call = pool.call()
    with pytest.raises(WireError):
        pool.answer(await pool.taken(2), Response(200, [(b"Content-Length", b"9")]))
    assert (await call).reason is Reason.BAD_RESPONSE
    call = pool.call()
    envelope = await pool.taken(3)
    pool.answer(envelope, Response(200), more=True)
    with pytest.raises(WireError):
        pool.say(Kind.BODY, envelope, b"x" * (CHUNK + 1), sequence=1, more=True)
    assert (await call).reason is Reason.BAD_RESPONSE


async def test_what_comes_behind_the_ending_is_answered_with_a_cancel(pool: Pool) -> None:
    """And a second answer counts for nothing."""
    call = pool.call()
    envelope = await pool.taken()
    pool.answer(envelope, OK)
    pool.answer(envelope, Response(404))
    assert (await call).response == OK
    pool.answer(envelope, OK)
    pool.say(Kind.CLAIM, envelope)
    pool.answer(replace(envelope, attempt=2), Response(200), more=True)
    pool.say(Kind.BODY, envelope, b"x", sequence=1, more=True)
    await pool.caller.settled()
    assert len(pool.all(Kind.CANCEL)) == 3
