"""Every way a request can end in the edge, and the races. The broker is in memory; the test is the worker."""

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest

from rabbitbal.edge import notices, publishing
from rabbitbal.edge.retry_after import QueueWait
from rabbitbal.edge.ticket import Ticket
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.message import encode_response
from rabbitbal.wire.reasons import Reason
from tests.edge_bench import CUT, OK, ONCE, ORDER, PAYLOAD, UNSENT, Bench, ended, turns, until


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.005)
    return Bench()


# --- answered


async def test_an_answer_ends_the_request(bench: Bench) -> None:
    """The worker's response, its name, and the time it took."""
    task = await bench.started()
    bench.answer(duration=1500)
    ending = await ended(task)
    assert (
        ending.response,
        ending.reason,
        ending.worker,
        ending.attempt,
        ending.app,
    ) == (OK, None, "worker-1", 1, 0.0015)
    assert bench.pending.endings == {"answered": 1}
    assert bench.broker.notices == []
    bench.assert_forgotten()


async def test_the_request_is_published_once_with_all_that_a_worker_needs(bench: Bench) -> None:
    """Key, reply address, deadline, expiration, attempt, and whether it may run twice."""
    task = await bench.started(replace(ORDER, timeout=3.0, traceparent="00-aa-bb-01"))
    (sent,) = bench.broker.requests
    bench.answer()
    await ended(task)
    envelope = sent.envelope
    assert (sent.exchange, sent.key, sent.body) == (topology.REQUESTS, "request.default", PAYLOAD)
    assert (
        envelope.app_id,
        envelope.reply_to,
        envelope.attempt,
        envelope.repeatable,
        envelope.route,
        envelope.traceparent,
    ) == ("edge-1", "response.edge-1", 1, True, "default", "00-aa-bb-01")
    assert 2500 < (envelope.expiration or 0) <= 3000
    assert 2000 < (envelope.deadline or 0) - time.time() * 1000 <= 3000
    assert len(envelope.correlation_id) == 32


async def test_an_answer_may_overtake_the_confirm(bench: Bench) -> None:
    """A worker can be quicker than the broker's ack; the publish that still waits is given up."""
    confirm: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    bench.broker.verdicts.append(confirm)
    task = await bench.started()
    bench.answer()
    assert (await ended(task)).reason is None
    assert confirm.cancelled()
    bench.assert_forgotten()


async def test_the_first_of_two_answers_counts(bench: Bench) -> None:
    """Whatever comes behind an ending finds no ticket."""
    task = await bench.started()
    bench.answer(worker="worker-1")
    bench.answer(worker="worker-2")
    assert (await ended(task)).worker == "worker-1"
    bench.answer(worker="worker-3")
    assert bench.pending.endings == {"answered": 1}
    bench.assert_forgotten()


async def test_an_answer_of_an_earlier_attempt_is_an_answer(bench: Bench) -> None:
    """It ends the request although a second attempt is already queued."""
    task = await bench.started()
    bench.reply(Kind.REDELIVERED)
    await until(lambda: len(bench.broker.requests) == 2)
    bench.answer(0)
    assert (await ended(task)).reason is None
    bench.assert_forgotten()


async def test_an_answer_ends_a_request_that_is_being_published_again(bench: Bench) -> None:
    """The publish under way is abandoned and no other follows."""
    confirm: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    task = await bench.started()
    bench.broker.verdicts.append(confirm)
    bench.reply(Kind.REDELIVERED)
    await until(lambda: len(bench.broker.requests) == 2)
    bench.answer(0)
    assert (await ended(task)).reason is None
    assert confirm.cancelled()
    assert len(bench.broker.requests) == 2
    bench.assert_forgotten()


async def test_a_reason_of_the_worker_becomes_its_status(bench: Bench) -> None:
    """The worker says what happened; the edge alone says how that looks to a client."""
    task = await bench.started()
    request = bench.broker.requests[0].envelope
    said = Envelope(Kind.RESPONSE, request.correlation_id, "worker-1", reason=Reason.APP_ERROR)
    bench.pending.reply(said, encode_response(OK))
    ending = await ended(task)
    assert (ending.reason, ending.response.status) == (Reason.APP_ERROR, 500)
    assert bench.broker.told(Kind.ENDED) == []  # the tap has the worker's own message


async def test_a_response_that_is_not_http_is_a_bad_response(bench: Bench) -> None:
    """The client hears at once; the caller logs what was wrong."""
    task = await bench.started()
    with pytest.raises(WireError):
        bench.reply(Kind.RESPONSE, payload=b"nonsense")
    ending = await ended(task)
    assert (ending.reason, ending.response.status) == (Reason.BAD_RESPONSE, 502)
    bench.assert_forgotten()


async def test_a_message_that_is_not_for_an_edge_is_refused(bench: Bench) -> None:
    """And ends nothing."""
    task = await bench.started()
    with pytest.raises(WireError):
        bench.reply(Kind.CANCEL)
    assert not task.done()
    bench.answer()
    await ended(task)


# --- deadlines


async def test_a_request_that_nobody_took_ends_with_queue_timeout(bench: Bench) -> None:
    """It was not run, and says so."""
    ending = await ended(bench.start(replace(ORDER, timeout=0.02)))
    assert (ending.reason, ending.response.status) == (Reason.QUEUE_TIMEOUT, 504)
    assert bench.broker.told(Kind.CANCEL) == []
    bench.assert_forgotten()


async def test_a_request_that_a_worker_claimed_ends_with_worker_timeout(bench: Bench) -> None:
    """The worker is told to stop."""
    task = await bench.started(replace(ORDER, timeout=0.05))
    bench.reply(Kind.CLAIM, worker="worker-7")
    ending = await ended(task)
    assert (ending.reason, ending.response.status) == (Reason.WORKER_TIMEOUT, 504)
    (cancel,) = bench.broker.told(Kind.CANCEL)
    assert (topology.STREAMS, "worker-7", bench.broker.requests[0].envelope.correlation_id) == (
        cancel.exchange,
        cancel.key,
        cancel.envelope.correlation_id,
    )


async def test_a_claim_of_a_former_attempt_claims_nothing(bench: Bench) -> None:
    """The request waits in a queue again, whatever a lost worker had said."""
    task = await bench.started(replace(ORDER, timeout=0.05))
    bench.reply(Kind.CLAIM)
    bench.reply(Kind.REDELIVERED)
    bench.reply(Kind.CLAIM, 0, attempt=1)
    assert Reason.QUEUE_TIMEOUT is (await ended(task)).reason


async def test_a_late_answer_is_dropped(bench: Bench) -> None:
    """The client has its 504 already."""
    task = await bench.started(replace(ORDER, timeout=0.02))
    await ended(task)
    bench.answer()
    assert bench.pending.endings == {"queue-timeout": 1}
    bench.assert_forgotten()


async def test_a_claim_for_a_request_that_ended_is_answered_with_a_cancel(bench: Bench) -> None:
    """Nobody waits any longer: the worker need not go on."""
    task = await bench.started(replace(ORDER, timeout=0.02))
    await ended(task)
    bench.reply(Kind.CLAIM, worker="worker-3")
    await turns()
    assert [cancel.key for cancel in bench.broker.told(Kind.CANCEL)] == ["worker-3"]


async def test_a_publish_is_bounded_by_the_deadline(bench: Bench) -> None:
    """A broker that never confirms cannot hold a request longer."""
    confirm: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    bench.broker.verdicts.append(confirm)
    assert Reason.QUEUE_TIMEOUT is (await ended(bench.start(replace(ORDER, timeout=0.05)))).reason
    assert 0 < bench.broker.requests[0].timeout <= 0.05
    assert confirm.cancelled()
    bench.assert_forgotten()


# --- the client leaves


async def test_a_client_that_leaves_ends_the_request(bench: Bench) -> None:
    """The tap is told, as no response will tell it."""
    task = await bench.started()
    bench.tickets[0].settle(Reason.CLIENT_GONE)
    ending = await ended(task)
    assert (ending.reason, ending.response.status) == (Reason.CLIENT_GONE, 499)
    (event,) = bench.broker.told(Kind.ENDED)
    assert (
        event.exchange,
        event.key,
        event.envelope.reason,
        event.envelope.status,
    ) == (topology.EVENTS, "ended.edge-1", Reason.CLIENT_GONE, 499)
    bench.assert_forgotten()


async def test_the_worker_of_a_client_that_left_is_cancelled(bench: Bench) -> None:
    """The one that claimed it, or whichever has it or will have it."""
    first, second = await bench.started(), await bench.started()
    bench.reply(Kind.CLAIM, 0, worker="worker-1")
    for ticket in bench.tickets:
        ticket.settle(Reason.CLIENT_GONE)
    await asyncio.gather(ended(first), ended(second))
    assert [cancel.key for cancel in bench.broker.told(Kind.CANCEL)] == ["worker-1", topology.EVERY_WORKER]
    bench.reply(Kind.CLAIM, 1, worker="worker-2")
    await turns()
    assert [cancel.key for cancel in bench.broker.told(Kind.CANCEL)][2:] == ["worker-2"]


async def test_a_client_that_left_before_the_publish_costs_no_message(bench: Bench) -> None:
    """Nothing is sent for nobody."""
    task = asyncio.ensure_future(bench.pending.run(ORDER, lambda ticket: ticket.settle(Reason.CLIENT_GONE)))
    assert Reason.CLIENT_GONE is (await ended(task)).reason
    assert bench.broker.requests == []


async def test_a_cancelled_request_leaves_nothing_behind(bench: Bench) -> None:
    """The server cancels its tasks when it goes down at once: the cancellation is not swallowed."""
    task = await bench.started()
    bench.reply(Kind.CLAIM)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns()
    assert len(bench.broker.told(Kind.CANCEL)) == 1
    bench.assert_forgotten()


async def test_a_watcher_that_fails_leaves_nothing_behind(bench: Bench) -> None:
    """The defect is the caller's to report."""

    def broken(ticket: Ticket) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await bench.pending.run(ORDER, broken)
    bench.assert_forgotten()


# --- the broker refuses


async def test_a_full_queue_ends_the_first_attempt(bench: Bench) -> None:
    """503 with a Retry-After; never retried behind the client's back."""
    bench.broker.verdicts.append(Verdict.REJECTED)
    ending = await ended(bench.start())
    assert (ending.reason, ending.response.status) == (Reason.OVERLOADED, 503)
    assert (b"Retry-After", b"1") in ending.response.fields
    assert len(bench.broker.requests) == 1
    bench.assert_forgotten()


async def test_a_request_that_was_accepted_once_waits_for_room_later(bench: Bench) -> None:
    """A lost worker and a full queue together do not turn an accepted request away."""
    task = await bench.started()
    bench.broker.verdicts.extend([Verdict.REJECTED, Verdict.REJECTED, Verdict.ROUTED])
    bench.reply(Kind.REDELIVERED)
    await until(lambda: len(bench.broker.requests) == 4)
    bench.answer()
    ending = await ended(task)
    assert (ending.reason, ending.attempt) == (None, 2)


async def test_a_route_without_a_pool_is_unroutable_after_the_grace(bench: Bench) -> None:
    """503 with a Retry-After."""
    bench.broker.verdicts.extend([Verdict.UNROUTABLE] * 1000)
    ending = await ended(bench.start(replace(ORDER, route_grace=0.03)))
    assert (ending.reason, ending.response.status) == (Reason.UNROUTABLE, 503)
    assert (b"Retry-After", b"5") in ending.response.fields
    assert len(bench.broker.requests) > 1
    bench.assert_forgotten()


async def test_a_pool_that_is_bound_within_the_grace_gets_the_request(bench: Bench) -> None:
    """A binding that is moved costs no request."""
    bench.broker.verdicts.extend([Verdict.UNROUTABLE] * 3)
    task = bench.start(ONCE)
    await until(lambda: len(bench.broker.requests) == 4)
    bench.answer()
    ending = await ended(task)
    assert (ending.reason, ending.attempt) == (None, 1)


async def test_without_grace_an_unroutable_request_ends_at_once(bench: Bench) -> None:
    """A grace of zero is one publish."""
    bench.broker.verdicts.extend([Verdict.UNROUTABLE] * 9)
    assert Reason.UNROUTABLE is (await ended(bench.start(replace(ORDER, route_grace=0.0)))).reason
    assert len(bench.broker.requests) == 1


async def test_an_unroutable_request_was_not_sent(bench: Bench) -> None:
    """Losing the connection during the grace does not harm a request that no queue has."""
    bench.broker.verdicts.append(Verdict.UNROUTABLE)
    task = bench.start(ONCE)
    await until(lambda: len(bench.broker.requests) == 1)
    bench.pending.broker_lost()
    await until(lambda: len(bench.broker.requests) == 2)
    bench.answer()
    assert (await ended(task)).reason is None


async def test_an_error_that_nobody_expected_is_an_edge_error(bench: Bench) -> None:
    """The client hears of it at once instead of waiting for its deadline."""
    bench.broker.verdicts.append(ZeroDivisionError())
    assert Reason.EDGE_ERROR is (await ended(bench.start())).reason
    bench.assert_forgotten()


# --- the broker is away


async def test_a_broker_that_is_away_longer_than_the_grace_is_down(bench: Bench) -> None:
    """503 with a Retry-After; nothing was sent."""
    bench.broker.go_away()
    ending = await ended(bench.start(replace(ORDER, broker_grace=0.02)))
    assert (ending.reason, ending.response.status) == (Reason.BROKER_DOWN, 503)
    assert (b"Retry-After", b"5") in ending.response.fields
    assert bench.broker.requests == []
    assert bench.broker.notices == []
    bench.assert_forgotten()


async def test_a_request_that_was_never_sent_waits_for_the_broker(bench: Bench) -> None:
    """Also one that is not safe to repeat: sending is what makes it unsafe."""
    bench.broker.go_away()
    task = bench.start(ONCE)
    await turns()
    bench.pending.broker_lost()
    bench.broker.come_back()
    await until(lambda: len(bench.broker.requests) == 1)
    bench.answer()
    ending = await ended(task)
    assert (ending.reason, ending.attempt) == (None, 1)


async def test_a_connection_lost_before_the_send_harms_nothing(bench: Bench) -> None:
    """The publisher knows that it never left this process."""
    bench.broker.verdicts.append(UNSENT)
    task = bench.start(ONCE)
    await until(lambda: len(bench.broker.requests) == 2)
    bench.answer()
    assert (await ended(task)).reason is None


async def test_a_connection_lost_during_the_send_ends_what_cannot_be_repeated(bench: Bench) -> None:
    """It may have been queued: nobody can promise an answer, nobody may send it again."""
    bench.broker.verdicts.append(CUT)
    ending = await ended(bench.start(ONCE))
    assert (ending.reason, ending.response.status) == (Reason.WORKER_LOST, 502)
    assert len(bench.broker.requests) == 1
    bench.assert_forgotten()


async def test_a_connection_lost_during_the_send_repeats_what_can_be(bench: Bench) -> None:
    """Until a queue has it."""
    bench.broker.verdicts.extend([CUT, CUT])
    task = bench.start()
    await until(lambda: len(bench.broker.requests) == 3)
    bench.answer()
    assert (await ended(task)).reason is None


async def test_a_connection_lost_after_the_send_ends_what_cannot_be_repeated_at_once(bench: Bench) -> None:
    """To wait would promise an answer that may never come."""
    task = await bench.started(ONCE)
    bench.pending.broker_lost()
    assert Reason.WORKER_LOST is (await ended(task)).reason


async def test_a_connection_lost_after_the_send_repeats_what_can_be(bench: Bench) -> None:
    """As the next attempt, once the broker is back."""
    task = await bench.started()
    bench.reply(Kind.CLAIM)
    bench.broker.go_away()
    bench.pending.broker_lost()
    await turns()
    assert len(bench.broker.requests) == 1
    bench.broker.come_back()
    await until(lambda: len(bench.broker.requests) == 2)
    assert bench.broker.requests[1].envelope.attempt == 2
    bench.answer()
    ending = await ended(task)
    assert (ending.reason, ending.attempt) == (None, 2)


async def test_both_connections_lost_publish_a_request_once(bench: Bench) -> None:
    """The edge has two connections; a broker that restarts takes both, one after the other."""
    task = await bench.started()
    bench.broker.go_away()
    bench.pending.broker_lost()
    await turns()
    bench.pending.broker_lost()
    await turns()
    bench.broker.come_back()
    await until(lambda: len(bench.broker.requests) >= 2)
    await turns(20)
    assert len(bench.broker.requests) == 2
    bench.answer()
    await ended(task)
    bench.assert_forgotten()


async def test_a_request_whose_reply_queue_was_lost_during_its_publish_is_sent_again(bench: Bench) -> None:
    """The publish may be confirmed by one connection while the other, with the replies, is gone: nobody answers."""
    confirm: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    bench.broker.verdicts.append(confirm)
    task = await bench.started()
    bench.pending.broker_lost()
    await until(lambda: len(bench.broker.requests) == 2)
    bench.answer()
    assert (await ended(task)).reason is None
    bench.assert_forgotten()


async def test_a_lost_connection_does_not_touch_requests_that_have_ended(bench: Bench) -> None:
    """Settled, and not yet removed: the ending stands."""
    task = await bench.started(ONCE)
    bench.answer()
    bench.pending.broker_lost()
    assert (await ended(task)).reason is None


async def test_a_broker_that_goes_away_again_and_again_is_bounded_by_the_deadline(bench: Bench) -> None:
    """Each absence within the grace, all together not."""
    bench.broker.verdicts.extend([CUT] * 10_000)
    assert Reason.QUEUE_TIMEOUT is (await ended(bench.start(replace(ORDER, timeout=0.05)))).reason
    bench.assert_forgotten()


# --- the worker is lost


async def test_a_redelivered_request_runs_again_if_it_may(bench: Bench) -> None:
    """As attempt 2, with the same identity and less time."""
    task = await bench.started()
    bench.reply(Kind.CLAIM)
    bench.reply(Kind.REDELIVERED)
    await until(lambda: len(bench.broker.requests) == 2)
    first, second = (request.envelope for request in bench.broker.requests)
    assert (first.attempt, second.attempt, second.correlation_id) == (1, 2, first.correlation_id)
    # Two readings of two clocks.
    assert abs((second.deadline or 0) - (first.deadline or 0)) < 100
    assert (second.expiration or 0) <= (first.expiration or 0)
    bench.answer()
    assert (await ended(task)).attempt == 2


async def test_a_redelivered_request_that_may_not_run_again_ends(bench: Bench) -> None:
    """502; it is not published again."""
    task = await bench.started(ONCE)
    bench.reply(Kind.REDELIVERED)
    ending = await ended(task)
    assert (ending.reason, ending.response.status) == (Reason.WORKER_LOST, 502)
    assert len(bench.broker.requests) == 1
    bench.assert_forgotten()


async def test_a_notice_that_comes_twice_counts_once(bench: Bench) -> None:
    """A worker that could not ack its notice's message says it again, or another does."""
    task = await bench.started()
    bench.reply(Kind.REDELIVERED, 0)
    bench.reply(Kind.REDELIVERED, 0, worker="worker-2")
    await until(lambda: len(bench.broker.requests) == 2)
    bench.reply(Kind.REDELIVERED, 0, worker="worker-3")
    await turns(20)
    assert (len(bench.broker.requests), bench.tickets[0].losses) == (2, 1)
    bench.answer()
    await ended(task)


async def test_the_third_loss_is_poison(bench: Bench) -> None:
    """502; a copy goes to the dead-letter exchange and no fourth attempt to anybody."""
    task = await bench.started()
    for attempt in (1, 2, 3):
        await until(lambda attempt=attempt: len(bench.broker.requests) == attempt)  # type: ignore[misc]
        await turns()
        bench.reply(Kind.REDELIVERED)
    ending = await ended(task)
    assert (ending.reason, ending.response.status, len(bench.broker.requests)) == (Reason.POISON, 502, 3)
    (dead,) = [notice for notice in bench.broker.notices if notice.exchange == topology.DEAD]
    assert (
        dead.body,
        dead.envelope.reason,
        dead.envelope.attempt,
        dead.envelope.expiration,
    ) == (PAYLOAD, Reason.POISON, 3, None)
    bench.assert_forgotten()


async def test_a_notice_that_overtakes_the_confirm_leaves_one_sender(bench: Bench) -> None:
    """The publish of attempt 1 still waits for its confirm when attempt 2 goes out; if it then fails, nothing is sent
    a third time."""
    confirm: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    bench.broker.verdicts.append(confirm)
    task = await bench.started()
    bench.reply(Kind.REDELIVERED)
    await until(lambda: len(bench.broker.requests) == 2)
    if not confirm.done():
        confirm.set_exception(CUT)
    # The one that failed would be back after a tenth of the retry period.
    deadline = time.monotonic() + 2 * publishing.RETRY_PERIOD
    await until(lambda: time.monotonic() > deadline)
    assert [request.envelope.attempt for request in bench.broker.requests] == [1, 2]
    bench.answer()
    await ended(task)
    bench.assert_forgotten()


async def test_a_notice_behind_the_ending_changes_nothing(bench: Bench) -> None:
    """Neither between the ending and its removal nor afterwards."""
    task = await bench.started()
    bench.answer()
    bench.reply(Kind.REDELIVERED)
    assert (await ended(task)).reason is None
    bench.reply(Kind.REDELIVERED)
    await turns()
    assert len(bench.broker.requests) == 1


# --- limits


async def test_no_more_requests_are_taken_than_may_be_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is refused at once, and there is room again when one has ended."""
    bench = Bench(max_pending=2)
    first, second = await bench.started(), await bench.started()
    assert Reason.OVERLOADED is (await ended(bench.start())).reason
    assert 2 == len(bench.pending) == len(bench.broker.requests)
    bench.answer(0)
    await ended(first)
    third = await bench.started()
    bench.answer(1)
    bench.answer(2)
    await asyncio.gather(ended(second), ended(third))
    bench.assert_forgotten()


async def test_no_more_bytes_are_held_than_may_be() -> None:
    """Counted over all that is pending, and given back."""
    bench = Bench(buffer_limit=len(PAYLOAD) * 3 - 1)
    first, second = await bench.started(), await bench.started()
    assert Reason.OVERLOADED is (await ended(bench.start())).reason
    bench.answer(0)
    await ended(first)
    third = await bench.started()
    bench.answer(1)
    bench.answer(2)
    await asyncio.gather(ended(second), ended(third))
    bench.assert_forgotten()


async def test_notices_are_bounded_when_the_broker_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blocked broker and a flood of refused requests together must not fill the memory."""
    monkeypatch.setattr(notices, "MAX_NOTICES", 3)
    bench = Bench(max_pending=1)
    bench.broker.notices_wait = asyncio.Event()
    task = await bench.started()
    for _ in range(20):
        assert Reason.OVERLOADED is (await ended(bench.start())).reason
    assert 3 == len(bench.pending._notices) == len(bench.broker.notices)
    bench.broker.notices_wait.set()
    await until(lambda: not len(bench.pending._notices))
    bench.answer()
    await ended(task)


async def test_a_lost_notice_harms_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it and no error escapes."""
    task = await bench.started()

    async def refuse(*_: object, **__: object) -> Verdict:
        raise CUT

    monkeypatch.setattr(bench.broker, "publish", refuse)
    bench.tickets[0].settle(Reason.CLIENT_GONE)
    assert Reason.CLIENT_GONE is (await ended(task)).reason
    await until(lambda: not len(bench.pending._notices))


async def test_retry_after_grows_with_the_wait_in_the_queue(bench: Bench) -> None:
    """What recent requests have waited is what the next would."""
    for _ in range(200):
        bench.pending.wait.add(9.0)
    bench.broker.verdicts.append(Verdict.REJECTED)
    ending = await ended(bench.start())
    assert (b"Retry-After", b"10") in ending.response.fields


@pytest.mark.parametrize(("seconds", "told"), [(0.0, 1), (1.4, 2), (-5.0, 1), (1e6, 120)])
def test_retry_after_lies_within_its_bounds(seconds: float, told: int) -> None:
    """Never zero, never more than two minutes."""
    wait = QueueWait()
    for _ in range(500):
        wait.add(seconds)
    assert told == wait.retry_after()


async def test_many_requests_at_once_each_get_their_own_answer() -> None:
    """Answers in another order than the requests find their own."""
    bench = Bench(max_pending=500, buffer_limit=10**6)
    tasks = [bench.start() for _ in range(500)]
    await until(lambda: len(bench.broker.requests) == 500)
    for number in reversed(range(500)):
        bench.answer(number, worker=bench.broker.requests[number].envelope.correlation_id)
    endings = await asyncio.gather(*tasks)
    assert [request.envelope.correlation_id for request in bench.broker.requests] == [
        ending.worker for ending in endings
    ]
    await turns()
    bench.assert_forgotten()


def test_bytes_still_being_received_count_against_the_limit() -> None:
    """Many unfinished uploads fill memory as whole ones do."""
    pending = Bench(buffer_limit=100).pending
    assert pending.hold(60)
    assert not pending.hold(60)
    pending.release(60)
    assert pending.hold(100)


async def test_a_body_of_another_length_than_declared_is_a_bad_response(bench: Bench) -> None:
    """RFC 9110 §8.6; with HEAD the declared length is that of a body that is not sent."""
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    for method, expected in (("GET", Reason.BAD_RESPONSE), ("HEAD", None)):
        task = await bench.started(replace(ORDER, method=method))
        envelope = Envelope(Kind.RESPONSE, bench.broker.requests[-1].envelope.correlation_id, "worker-1")
        with contextlib.suppress(WireError):
            bench.pending.reply(envelope, short)
        assert expected is (await ended(task)).reason


async def test_the_tap_is_told_what_a_request_was_that_no_pool_was_given(bench: Bench) -> None:
    """It has no copy of it; of a request that a pool had it has one."""
    bench.broker.verdicts.extend([Verdict.UNROUTABLE, Verdict.REJECTED])
    payload = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    for expected in (b"POST /a HTTP/1.1\r\nHost: a\r\n\r\n", b""):
        await ended(bench.start(replace(ORDER, payload=payload, route_grace=0.0)))
        await until(lambda: bench.broker.told(Kind.ENDED))
        assert expected == bench.broker.told(Kind.ENDED)[0].body
        bench.broker.notices.clear()


async def test_the_tap_is_told_of_a_request_that_was_never_pending(bench: Bench) -> None:
    """Refused by the edge itself, before it was whole."""
    bench.pending.refuse(Reason.BODY_TOO_LARGE, PAYLOAD)
    await until(lambda: bench.broker.told(Kind.ENDED))
    (event,) = bench.broker.told(Kind.ENDED)
    assert (event.envelope.reason, event.envelope.status, event.body) == (Reason.BODY_TOO_LARGE, 413, PAYLOAD)
