"""The life of a request in a worker, where request and response are whole."""

import asyncio
from typing import Any

import pytest

from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.message import Request, Response, decode_response, encode_request
from rabbitbal.wire.reasons import Reason
from rabbitbal.worker import post, replies, runner
from rabbitbal.worker.targets import AppRaised, BadResponse
from tests.bench import CUT, Bench, Message, done
from tests.harness import until


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(post, "RETRY_PERIOD", 0.002)
    return Bench()


async def test_a_request_is_run_answered_and_acknowledged_in_that_order(bench: Bench) -> None:
    """The answer names its request, attempt, pool, worker and time; the ack follows its confirm."""
    task = bench.deliver()
    await bench.running()
    assert (bench.broker.sent, bench.settled()) == ([], [])
    bench.app.finish()
    await done(task)
    ((exchange, key, envelope, body),) = bench.broker.sent
    assert (exchange, key, envelope.kind) == (topology.RESPONSES, "response.edge-1", Kind.RESPONSE)
    assert (
        envelope.correlation_id,
        envelope.app_id,
        envelope.attempt,
        envelope.pool,
        envelope.reason,
        envelope.traceparent,
    ) == ("c0ffee", "worker-1", 2, "default", None, "00-aa-bb-01")
    assert (envelope.duration or 0) > 0
    assert decode_response(body).body == b"done"
    assert bench.settled() == ["ack"]
    assert (bench.runner.running, bench.runner.most_running) == (0, 1)


async def test_the_target_gets_the_request_as_it_was_sent(bench: Bench) -> None:
    """Method, target, fields and body."""
    request = Request("POST", b"/a?b", [(b"X", b"1"), (b"X", b"2"), (b"Content-Length", b"3")], b"abc")
    task = bench.deliver(body=encode_request(request))
    await bench.running()
    assert [call.request for call in bench.app.calls] == [request]
    bench.app.finish()
    await done(task)


async def test_a_redelivered_request_is_not_run(bench: Bench) -> None:
    """Somebody had it before: the edge is told, and decides."""
    await done(bench.deliver(redelivered=True))
    ((_, key, envelope, body),) = bench.broker.sent
    assert (key, envelope.kind, envelope.attempt, body) == ("response.edge-1", Kind.REDELIVERED, 2, b"")
    assert (bench.app.calls, bench.settled()) == ([], ["ack"])


async def test_a_redelivered_request_goes_back_when_the_edge_cannot_be_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged without a notice it would be lost."""
    monkeypatch.setattr(replies, "NOTICE_GRACE", 0.02)
    bench.broker.up.clear()
    await done(bench.deliver(redelivered=True))
    assert bench.settled() == ["requeue"]


async def test_a_redelivered_request_of_an_edge_that_is_no_more_is_dropped(bench: Bench) -> None:
    """Nobody waits for it."""
    bench.broker.verdicts.append(Verdict.UNROUTABLE)
    await done(bench.deliver(redelivered=True))
    assert (bench.app.calls, bench.settled()) == ([], ["ack"])


async def test_a_request_behind_its_deadline_is_not_run(bench: Bench) -> None:
    """The edge has answered for it."""
    await done(bench.deliver(timeout=-0.001))
    assert (bench.app.calls, bench.broker.sent, bench.settled()) == ([], [], ["ack"])


async def test_a_request_is_cancelled_at_its_deadline(bench: Bench) -> None:
    """The edge has answered for it; the slot is free again."""
    await done(bench.deliver(timeout=0.03))
    assert (bench.app.cancelled, [k for k in bench.broker.kinds() if k is Kind.RESPONSE], bench.settled()) == (
        1,
        [],
        ["ack"],
    )


async def test_a_cancel_ends_the_request_it_names(bench: Bench) -> None:
    """Acknowledged without an answer; the others go on."""
    first, second = bench.deliver(name="one"), bench.deliver(name="two")
    await bench.running(2)
    bench.tell(Kind.CANCEL, name="one")
    bench.tell(Kind.CANCEL, name="unknown")
    await done(first)
    assert (bench.app.cancelled, bench.runner.running, bench.settled(0), bench.settled(1)) == (1, 1, ["ack"], [])
    bench.app.finish(1)
    await done(second)
    assert bench.broker.kinds() == [Kind.RESPONSE]


async def test_a_cancel_does_not_cut_off_an_acknowledgement(bench: Bench) -> None:
    """A message neither acknowledged nor given back would hold its slot for as long as the worker lives."""
    task = bench.deliver()
    await bench.running()
    bench.messages[0].hold = asyncio.Event()
    bench.app.finish()
    await until(lambda: bench.broker.sent)
    await asyncio.wait({task}, timeout=0.01)
    bench.tell(Kind.CANCEL)
    await asyncio.wait({task}, timeout=0.01)
    bench.messages[0].hold.set()
    await done(task)
    assert bench.settled() == ["ack"]


async def test_an_application_that_raises_is_answered_for(bench: Bench) -> None:
    """With the reason, and a response for whoever reads the copy."""
    task = bench.deliver()
    await bench.running()
    error = AppRaised("ZeroDivisionError")
    error.__cause__ = ZeroDivisionError()
    bench.app.calls[0].result.set_exception(error)
    await done(task)
    ((_, _, envelope, body),) = bench.broker.sent
    assert (envelope.reason, decode_response(body).status, bench.settled()) == (Reason.APP_ERROR, 500, ["ack"])


@pytest.mark.parametrize(
    "outcome",
    [BadResponse("no start"), Response(99), Response(200, [(b"a b", b"")]), Response(200, [(b"A", b"\r\n")])],
)
async def test_a_bad_response_is_answered_for(bench: Bench, outcome: Any) -> None:
    """Whether the target notices or only the encoding does."""
    task = bench.deliver()
    await bench.running()
    if isinstance(outcome, Response):
        bench.app.calls[0].result.set_result(outcome)
    else:
        bench.app.calls[0].result.set_exception(outcome)
    await done(task)
    ((_, _, envelope, body),) = bench.broker.sent
    assert (envelope.reason, decode_response(body).status, bench.settled()) == (Reason.BAD_RESPONSE, 502, ["ack"])


async def test_a_defect_of_the_worker_gives_the_request_back(bench: Bench) -> None:
    """Whoever gets it next asks the edge whether it may run again."""
    task = bench.deliver()
    await bench.running()
    bench.app.calls[0].result.set_exception(ZeroDivisionError())
    await done(task)
    assert (bench.broker.sent, bench.settled(), bench.runner.running) == ([], ["requeue"], 0)


async def test_an_answer_is_kept_while_the_broker_is_away(bench: Bench) -> None:
    """And acknowledged only when it was taken."""
    task = bench.deliver()
    await bench.running()
    bench.broker.up.clear()
    bench.app.finish()
    await asyncio.wait({task}, timeout=0.02)
    assert (bench.broker.tried, bench.settled()) == (0, [])
    bench.broker.verdicts.extend([CUT, Verdict.REJECTED])
    bench.broker.up.set()
    await done(task)
    assert (bench.broker.tried, bench.broker.kinds(), bench.settled()) == (3, [Kind.RESPONSE], ["ack"])


async def test_an_answer_is_not_kept_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot is worth more than an answer that nobody can be told."""
    monkeypatch.setattr(replies, "ANSWER_GRACE", 0.02)
    task = bench.deliver()
    await bench.running()
    bench.broker.up.clear()
    bench.app.finish()
    await done(task)
    assert (bench.broker.tried, bench.settled(), bench.runner.running) == (0, ["ack"], 0)


async def test_an_answer_for_an_edge_that_is_no_more_is_dropped(bench: Bench) -> None:
    """Unroutable: its reply queue is gone. Not repeated."""
    task = bench.deliver()
    await bench.running()
    bench.broker.verdicts.append(Verdict.UNROUTABLE)
    bench.app.finish()
    await done(task)
    assert (bench.broker.tried, bench.settled()) == (1, ["ack"])


async def test_a_lost_channel_ends_the_request_quietly(bench: Bench) -> None:
    """The client library cancels the callbacks of a channel that is gone; there is nothing left to acknowledge."""
    task = bench.deliver()
    await bench.running()
    bench.messages[0].channel_gone = True
    task.cancel()
    await done(task)
    assert (bench.app.cancelled, bench.settled(), bench.runner.running) == (1, [], 0)


@pytest.mark.parametrize("payload", [b"", b"nonsense", b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc"])
async def test_a_payload_that_is_not_http_is_kept_for_people(bench: Bench, payload: bytes) -> None:
    """In the dead-letter exchange, as it came."""
    await done(bench.deliver(body=payload))
    ((exchange, _, envelope, body),) = bench.broker.sent
    assert (topology.DEAD, Reason.BAD_REQUEST, payload) == (exchange, envelope.reason, body)
    assert (bench.app.calls, bench.settled(), bench.runner.running) == ([], ["ack"], 0)


async def test_a_message_of_another_kind_is_kept_for_people(bench: Bench) -> None:
    """A pool's queue holds requests only."""
    await done(bench.hand_over(Message(False, Envelope(Kind.CANCEL, "c", "edge-1"), b"x")))
    stranger = Message(False, Envelope(Kind.CANCEL, "c", "edge-1"), b"y")
    stranger.type = None
    await done(bench.hand_over(stranger))
    assert [body for exchange, _, _, body in bench.broker.sent if exchange == topology.DEAD] == [b"x", b"y"]
    assert (bench.settled(0), bench.settled(1)) == (["ack"], ["ack"])


async def test_a_bad_message_waits_for_the_broker_instead_of_going_round(bench: Bench) -> None:
    """Given back at once it would be delivered again at once, as fast as both can."""
    bench.broker.up.clear()
    bench.broker.verdicts.append(CUT)
    task = bench.deliver(body=b"nonsense")
    await asyncio.wait({task}, timeout=0.02)
    assert (bench.settled(), task.done()) == ([], False)
    bench.broker.up.set()
    await done(task)
    assert (bench.broker.tried, bench.settled()) == (2, ["ack"])


async def test_a_bad_message_goes_back_when_it_cannot_be_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a message of a stranger is lost."""
    monkeypatch.setattr(runner, "PUBLISH_TIMEOUT", 0.02)
    bench.broker.up.clear()
    await done(bench.deliver(body=b"nonsense"))
    assert bench.settled() == ["requeue"]


# --- claims


async def test_a_short_request_claims_nothing(bench: Bench) -> None:
    """It costs two messages and an ack."""
    task = bench.deliver()
    await bench.running()
    bench.app.finish()
    await done(task)
    assert bench.broker.kinds() == [Kind.RESPONSE]


async def test_a_long_request_says_who_runs_it_once() -> None:
    """So that the edge knows whom to cancel."""
    bench = Bench(claim_after=0.005)
    task = bench.deliver()
    await until(lambda: bench.broker.sent)
    ((_, key, envelope, body),) = bench.broker.sent
    assert (
        key,
        envelope.kind,
        envelope.app_id,
        envelope.attempt,
        envelope.pool,
        body,
    ) == ("response.edge-1", Kind.CLAIM, "worker-1", 2, "default", b"")
    bench.app.finish()
    await done(task)
    assert bench.broker.kinds() == [Kind.CLAIM, Kind.RESPONSE]
    assert bench.left_over() == []


async def test_a_request_near_its_deadline_is_claimed_at_once() -> None:
    """Or its timeout would be told as one in the queue."""
    bench = Bench(claim_after=10.0)
    task = bench.deliver(timeout=5.0)
    await until(lambda: bench.broker.kinds() == [Kind.CLAIM])
    bench.app.finish()
    await done(task)


# --- capacity and leaving


async def test_as_many_requests_run_at_once_as_were_handed_over(bench: Bench) -> None:
    """The prefetch is the only limit: the runner neither queues nor adds."""
    tasks = [bench.deliver(name=str(number)) for number in range(8)]
    await bench.running(8)
    assert (bench.runner.running, bench.app.running, bench.app.most) == (8, 8, 8)
    for number in range(8):
        bench.app.finish(number)
    await asyncio.gather(*tasks)
    assert (bench.runner.running, bench.runner.most_running) == (0, 8)
    assert [message.settled for message in bench.messages] == [["ack"]] * 8


async def test_idle_waits_for_what_runs(bench: Bench) -> None:
    """Until the last is acknowledged, and not at all when nothing runs."""
    await asyncio.wait_for(bench.runner.idle(), 1)
    first, second = bench.deliver(name="one"), bench.deliver(name="two")
    await bench.running(2)
    idle = asyncio.ensure_future(bench.runner.idle())
    bench.app.finish(0)
    await done(first)
    await asyncio.wait({idle}, timeout=0.01)
    assert not idle.done()
    bench.app.finish(1)
    await asyncio.wait_for(idle, 1)
    assert bench.settled(1) == ["ack"]
    await done(second)


async def test_giving_up_hands_everything_back_at_once(bench: Bench) -> None:
    """Each request goes back once, is cancelled, and is not acknowledged."""
    tasks = [bench.deliver(name=str(number)) for number in range(3)]
    await bench.running(3)
    await bench.runner.give_up()
    await asyncio.gather(*tasks)
    assert (
        [message.settled for message in bench.messages],
        bench.app.cancelled,
        bench.broker.sent,
    ) == ([["requeue"]] * 3, 3, [])
    await asyncio.wait_for(bench.runner.idle(), 1)


async def test_giving_up_while_an_answer_is_under_way_settles_once(bench: Bench) -> None:
    """A second settlement would be a protocol error and close the channel of all the others."""
    first, second = bench.deliver(name="one"), bench.deliver(name="two")
    await bench.running(2)
    bench.messages[0].hold = asyncio.Event()
    giving_up = asyncio.ensure_future(bench.runner.give_up())
    await asyncio.wait({giving_up}, timeout=0.01)
    bench.app.finish(0)
    await asyncio.wait({first}, timeout=0.01)
    bench.messages[0].hold.set()
    await asyncio.wait_for(giving_up, 1)
    await asyncio.gather(first, second)
    assert (bench.settled(0), bench.settled(1)) == (["requeue"], ["requeue"])
