"""The life of a request in a worker, where a body travels in pieces, either way."""

import asyncio
import time
from typing import Any

import pytest

from rabbitbal.runtime.broker import Verdict
from rabbitbal.runtime.streams import AHEAD
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Kind, Leg
from rabbitbal.wire.flow import CHUNK, OVERHEAD, WINDOW
from rabbitbal.wire.message import Request, decode_response, encode_request
from rabbitbal.wire.reasons import Reason
from rabbitbal.worker import post, replies, run
from rabbitbal.worker.slots import Intake, Slots, Turn
from rabbitbal.worker.targets import AppRaised, BadResponse
from tests.bench import ATTEMPT, CUT, EDGE, NAME, NEVER_SENT, Bench, done, still
from tests.harness import until

UPLOAD = encode_request(Request("POST", b"/", [(b"Host", b"a")], b"first "), more=True)
KEY = topology.body_key(EDGE)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(post, "RETRY_PERIOD", 0.002)
    return Bench()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams detach after a moment."""
    monkeypatch.setattr(run, "DETACH_AFTER", 0.005)


# --- streamed responses


async def test_a_stream_is_a_head_and_its_pieces_in_order(bench: Bench) -> None:
    """The head goes the way of all responses, pieces a way that the tap does not hear; the ack is last."""
    task, call = await bench.streaming(b"one", b"two")
    ((exchange, key, head, payload), *pieces) = bench.broker.sent
    assert (exchange, key, head.kind, head.more) == (topology.RESPONSES, "response.edge-1", Kind.RESPONSE, True)
    assert head.duration is not None
    assert (decode_response(payload, more=True).status, head.attempt, head.pool) == (200, ATTEMPT, "default")
    assert {(exchange, key) for exchange, key, _, _ in pieces} == {(topology.RESPONSES, KEY)}
    assert bench.settled() == []
    call.end()
    await done(task)
    assert bench.broker.stream() == (b"onetwo", [1, 2, 3], True, None)
    last = bench.broker.of(Kind.BODY)[-1][0]
    assert (last.correlation_id, last.app_id, last.attempt) == (NAME, "worker-1", ATTEMPT)
    assert (last.duration or 0) > 0
    assert (bench.settled(), bench.left_over()) == (["ack"], [])


async def test_a_streamed_body_that_turns_out_empty_has_an_end(bench: Bench) -> None:
    """Or its client would wait for ever."""
    task, call = await bench.streaming()
    call.end()
    await done(task)
    assert bench.broker.stream() == (b"", [1], True, None)


async def test_credit_stops_a_stream_and_lets_it_go_on(bench: Bench) -> None:
    """The edge's word counts, however often it comes; others' is not heard."""
    task, call = await bench.streaming(credit=0)
    writing = asyncio.ensure_future(call.answer.write(b"x" * 2 * CHUNK))
    assert await still(lambda: not bench.broker.of(Kind.BODY))
    bench.tell(Kind.CREDIT, credit=1 << 30, attempt=ATTEMPT - 1)
    bench.tell(Kind.CREDIT, credit=1 << 30, edge="edge-2")
    assert await still(lambda: not bench.broker.of(Kind.BODY))
    bench.tell(Kind.CREDIT, credit=CHUNK + OVERHEAD)
    bench.tell(Kind.CREDIT, credit=CHUNK + OVERHEAD)
    bench.tell(Kind.CREDIT, credit=1)
    await until(lambda: len(bench.broker.stream()[0]) == CHUNK)
    assert await still(lambda: len(bench.broker.stream()[0]) == CHUNK)
    bench.tell(Kind.CREDIT, credit=2 * (CHUNK + OVERHEAD))
    await writing
    call.end()
    await done(task)
    assert bench.broker.stream() == (b"x" * 2 * CHUNK, [1, 2, 3], True, None)


@pytest.mark.parametrize(
    ("error", "reason"), [(AppRaised("x"), Reason.APP_ERROR), (BadResponse("x"), Reason.BAD_RESPONSE)]
)
async def test_a_failure_behind_the_head_ends_the_stream_with_a_reason(
    bench: Bench, error: Exception, reason: Reason
) -> None:
    """The client has seen the status; the edge must not let the body look whole."""
    task, call = await bench.streaming(b"half")
    call.result.set_exception(error)
    await done(task)
    assert bench.broker.stream() == (b"half", [1, 2], True, reason)
    assert (len(bench.broker.of(Kind.RESPONSE)), bench.settled(), bench.left_over()) == (1, ["ack"], [])


async def test_a_failure_before_the_head_is_answered_for(bench: Bench) -> None:
    """What the application had written is not sent."""
    task = bench.deliver()
    call = await bench.running()
    await call.stream(b"half")
    call.result.set_exception(AppRaised("x"))
    await done(task)
    ((envelope, body),) = bench.broker.of(Kind.RESPONSE)
    assert (envelope.reason, envelope.more, decode_response(body).status) == (Reason.APP_ERROR, None, 500)
    assert (bench.broker.stream()[1], bench.settled()) == ([], ["ack"])


async def test_a_body_shorter_than_declared_is_a_bad_response(bench: Bench) -> None:
    """While nothing has left an error can be answered."""
    task = bench.deliver()
    call = await bench.running()
    await call.answer.start(200, [(b"Content-Length", b"3")])
    call.end()
    await done(task)
    assert [envelope.reason for envelope, _ in bench.broker.of(Kind.RESPONSE)] == [Reason.BAD_RESPONSE]


async def test_a_target_that_does_not_finish_is_answered_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request does not stay without an answer."""

    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(bench.runner._means, "target", nothing)
    await done(bench.deliver())
    assert [envelope.reason for envelope, _ in bench.broker.of(Kind.RESPONSE)] == [Reason.BAD_RESPONSE]


async def test_a_defect_in_a_stream_breaks_it(bench: Bench) -> None:
    """Half a response cannot be given to another worker."""
    task, call = await bench.streaming(b"half")
    call.result.set_exception(ZeroDivisionError())
    await done(task)
    assert bench.broker.stream() == (b"half", [1, 2], True, Reason.WORKER_LOST)
    assert (bench.settled(), bench.left_over()) == (["ack"], [])


async def test_a_stream_outlasts_the_deadline(bench: Bench) -> None:
    """Once the head is out the edge has its answer."""
    task, call = await bench.streaming(timeout=0.3)
    assert await still(lambda: not task.done(), 0.35)
    call.end()
    await done(task)
    assert bench.broker.stream() == (b"", [1], True, None)


# --- a broker, or an edge, that does not take the stream


async def test_a_piece_that_may_have_arrived_breaks_the_stream(bench: Bench) -> None:
    """Sent again it might be there twice; left out it might be missing."""
    task, call = await bench.streaming(b"one")
    bench.broker.by_kind[Kind.BODY] = type(bench.broker.verdicts)([CUT])
    await call.answer.write(b"two")
    await done(task)
    assert bench.broker.stream() == (b"one", [1, 3], True, Reason.WORKER_LOST)
    assert (bench.app.cancelled, bench.settled(), bench.left_over()) == (1, ["ack"], [])


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, NEVER_SENT])
async def test_a_piece_that_did_not_arrive_is_sent_again(bench: Bench, verdict: Verdict) -> None:
    """Before those behind it."""
    task, call = await bench.streaming(b"one")
    bench.broker.by_kind[Kind.BODY] = type(bench.broker.verdicts)([verdict, verdict, verdict])
    await call.answer.write(b"two")
    await until(lambda: bench.broker.tried >= 4)
    await call.answer.write(b"three")
    call.end()
    await done(task)
    assert bench.broker.stream() == (b"onetwothree", [1, 2, 3, 4], True, None)


async def test_a_piece_that_was_overtaken_breaks_the_stream(bench: Bench) -> None:
    """The edge would refuse it behind its successor."""
    task, call = await bench.streaming()
    bench.broker.held[Kind.BODY] = asyncio.Event()
    await call.answer.write(b"x" * 2 * CHUNK)
    await until(lambda: bench.broker.tried == 3)
    bench.broker.by_kind[Kind.BODY] = type(bench.broker.verdicts)([Verdict.REJECTED])
    bench.broker.held[Kind.BODY].set()
    await done(task)
    assert bench.broker.stream()[1:] == ([2, 3], True, Reason.WORKER_LOST)
    assert bench.app.cancelled == 1


async def test_the_end_of_a_stream_overtakes_what_is_lost(bench: Bench) -> None:
    """As many pieces are under way as may be, and the first of them is lost: the edge hears of the end all the same."""
    task, call = await bench.streaming()
    bench.broker.held[Kind.BODY] = asyncio.Event()
    writing = asyncio.ensure_future(call.answer.write(b"x" * 10 * 1024))
    for _ in range(AHEAD + 2):
        await asyncio.wait({writing}, timeout=0.01)
        writing = asyncio.ensure_future(call.answer.write(b"x" * 10 * 1024))
    await until(lambda: bench.broker.tried == 1 + AHEAD)
    bench.broker.by_kind[Kind.BODY] = type(bench.broker.verdicts)([CUT] * AHEAD)
    bench.broker.held.pop(Kind.BODY).set()
    await done(task)
    await asyncio.wait({writing})
    assert bench.broker.stream()[2:] == (True, Reason.WORKER_LOST)


async def test_a_stream_that_is_broken_off_keeps_its_order(bench: Bench) -> None:
    """What is under way is not taken back: the edge would miss it and take the end for a fault."""
    task, call = await bench.streaming()
    bench.broker.held[Kind.BODY] = asyncio.Event()
    await call.answer.write(b"one")
    await until(lambda: bench.broker.tried == 2)
    bench.runner.drain(0.0)
    await until(lambda: bench.broker.tried == 3)
    bench.broker.held.pop(Kind.BODY).set()
    await done(task)
    assert bench.broker.stream() == (b"one", [1, 2], True, Reason.WORKER_LOST)


async def test_a_broker_that_stays_away_breaks_the_stream(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a grace."""
    monkeypatch.setattr(post, "PIECE_GRACE", 0.02)
    monkeypatch.setattr(run, "LAST_WORDS", 0.02)
    task, call = await bench.streaming(b"one")
    bench.broker.up.clear()
    bench.broker.by_kind[Kind.BODY] = type(bench.broker.verdicts)([NEVER_SENT] * 9)
    await call.answer.write(b"two")
    await done(task)
    assert (bench.broker.stream()[0], bench.app.cancelled, bench.settled()) == (b"one", 1, ["ack"])
    assert bench.left_over() == []


async def test_a_stream_whose_edge_is_gone_is_cancelled(bench: Bench) -> None:
    """The broker has no queue for the piece; nothing more is sent."""
    task, call = await bench.streaming(b"one")
    bench.broker.by_kind[Kind.BODY] = type(bench.broker.verdicts)([Verdict.UNROUTABLE])
    await call.answer.write(b"two")
    await done(task)
    assert bench.broker.stream() == (b"one", [1], False, None)
    assert (bench.app.cancelled, bench.settled(), bench.left_over()) == (1, ["ack"], [])


async def test_an_edge_that_is_gone_ends_what_runs_for_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may rest for hours: it is found out by probes. The other edge's stream goes on."""
    monkeypatch.setattr(bench.runner._prober, "_period", 0.002)
    probing = asyncio.ensure_future(bench.runner.probe())
    other, call = await bench.streaming(b"x", name="other", edge="edge-2")
    await until(lambda: bench.broker.of(Kind.PROBE))
    probes = [(exchange, key) for exchange, key, envelope, _ in bench.broker.sent if envelope.kind is Kind.PROBE]
    assert set(probes) == {(topology.RESPONSES, "body.edge-2")}
    real = bench.broker.publish

    async def publish(exchange: str, key: str, *rest: object, **options: object) -> Verdict:
        if key == KEY:
            return Verdict.UNROUTABLE
        return await real(exchange, key, *rest, **options)  # type: ignore[arg-type]

    waiting = bench.deliver(name="waiting")
    await bench.running(2)
    first, _ = await bench.streaming()
    monkeypatch.setattr(bench.broker, "publish", publish)
    await done(first)
    await done(waiting)
    assert (bench.settled(1), bench.settled(2), bench.app.cancelled) == (["ack"], ["ack"], 2)
    assert await still(lambda: not other.done())
    call.end()
    await done(other)
    assert bench.left_over() == []
    seen = len(bench.broker.of(Kind.PROBE))
    assert await still(lambda: len(bench.broker.of(Kind.PROBE)) <= seen + 1)
    probing.cancel()


# --- uploads


@pytest.mark.parametrize("upload", [True, False])
async def test_a_run_with_a_body_in_pieces_is_claimed_again_and_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, upload: bool
) -> None:
    """Its edge may have given it up while it could tell nobody; one that knows nothing of it answers with a cancel."""
    monkeypatch.setattr(run, "REMIND_AFTER", 0.005)
    if upload:
        task = bench.deliver(body=UPLOAD, more=True)
        await bench.running()
    else:
        task, _ = await bench.streaming(b"one")
    await until(lambda: len(bench.broker.of(Kind.CLAIM)) >= 3)
    bench.tell(Kind.CANCEL)
    await done(task)
    assert bench.settled() == ["ack"]
    assert bench.left_over() == []
    claims = len(bench.broker.of(Kind.CLAIM))
    assert await still(lambda: len(bench.broker.of(Kind.CLAIM)) == claims)


async def test_an_upload_is_claimed_with_credit_before_it_is_run(bench: Bench) -> None:
    """The edge learns where to send the rest; what was never claimed never started."""
    bench.broker.held[Kind.CLAIM] = asyncio.Event()
    task = bench.deliver(body=UPLOAD, more=True)
    await until(lambda: bench.broker.tried)
    # The edge may have the claim before the broker's confirm is here.
    bench.tell(Kind.BODY, b"second ", sequence=1, more=True)
    assert await still(lambda: not bench.app.calls)
    bench.broker.held[Kind.CLAIM].set()
    call = await bench.running()
    ((claim, _),) = bench.broker.of(Kind.CLAIM)
    assert (claim.credit, claim.app_id, claim.attempt) == (WINDOW, "worker-1", ATTEMPT)
    bench.tell(Kind.BODY, b"", sequence=2, more=False)
    assert [await call.body.read() for _ in range(4)] == [b"first ", b"second ", b"", b""]
    bench.app.finish()
    await done(task)
    assert (bench.broker.kinds(), bench.settled()) == ([Kind.CLAIM, Kind.RESPONSE], ["ack"])
    assert bench.left_over() == []


async def test_a_body_that_is_there_is_read_in_pieces(bench: Bench) -> None:
    """Whatever its edge thought to be small."""
    whole = bytes(range(256)) * 600
    task = bench.deliver(body=encode_request(Request("POST", b"/", [], whole)))
    call = await bench.running()
    pieces = [await call.body.read() for _ in range(4)]
    assert (b"".join(pieces) == whole, [len(piece) for piece in pieces[:2]], pieces[3]) == (True, [CHUNK, CHUNK], b"")
    bench.app.finish()
    await done(task)


async def test_an_upload_that_cannot_be_claimed_goes_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not started."""
    monkeypatch.setattr(replies, "NOTICE_GRACE", 0.02)
    bench.broker.up.clear()
    await done(bench.deliver(body=UPLOAD, more=True))
    assert (bench.app.calls, bench.settled(), bench.left_over()) == ([], ["requeue"], [])


async def test_an_upload_of_an_edge_that_is_no_more_is_dropped(bench: Bench) -> None:
    """The rest of it will never come."""
    bench.broker.verdicts.append(Verdict.UNROUTABLE)
    await done(bench.deliver(body=UPLOAD, more=True))
    assert (bench.app.calls, bench.settled()) == ([], ["ack"])


async def test_reading_makes_room_for_more(bench: Bench) -> None:
    """Credit is told by half windows, and only for what was read."""
    task = bench.deliver(body=UPLOAD, more=True)
    call = await bench.running()
    for sequence in (1, 2, 3):
        bench.tell(Kind.BODY, b"x" * CHUNK, sequence=sequence, more=True)
    assert await still(lambda: not bench.broker.of(Kind.CREDIT))
    for _ in range(3):
        await call.body.read()
    await until(lambda: bench.broker.of(Kind.CREDIT))
    ((exchange, key, envelope, _),) = [sent for sent in bench.broker.sent if sent[2].kind is Kind.CREDIT]
    assert (exchange, key, envelope.credit) == (topology.RESPONSES, KEY, WINDOW + 2 * (CHUNK + OVERHEAD))
    assert (envelope.correlation_id, envelope.attempt) == (NAME, ATTEMPT)
    bench.app.finish()
    await done(task)


async def test_an_upload_has_no_deadline_here(bench: Bench) -> None:
    """The edge sees its progress and keeps the time."""
    task = bench.deliver(body=UPLOAD, more=True, timeout=0.2)
    await bench.running()
    assert await still(lambda: not task.done(), 0.25)
    bench.app.finish()
    await done(task)
    assert bench.broker.kinds() == [Kind.CLAIM, Kind.RESPONSE]


@pytest.mark.parametrize(("sequence", "payload"), [(2, b"x"), (0, b"x"), (1, b"x" * (CHUNK + 1)), (None, b"x")])
async def test_a_body_that_does_not_go_on_is_lost(bench: Bench, sequence: int | None, payload: bytes) -> None:
    """Its reader is told, and its client gets an answer; the worker goes on."""
    task = bench.deliver(body=UPLOAD, more=True)
    call = await bench.running()
    assert await call.body.read() == b"first "
    reading = asyncio.ensure_future(call.body.read())
    await asyncio.sleep(0)
    bench.tell(Kind.BODY, payload, sequence=sequence, more=True)
    with pytest.raises(ConnectionError):
        await reading
    await done(task)
    ((envelope, _),) = bench.broker.of(Kind.RESPONSE)
    assert (envelope.reason, bench.app.cancelled, bench.settled()) == (Reason.WORKER_LOST, 1, ["ack"])
    assert bench.left_over() == []


async def test_a_body_that_does_not_go_on_ends_the_stream_in_answer_to_it(bench: Bench) -> None:
    """A response that began before."""
    task, _ = await bench.streaming(body=UPLOAD, more=True)
    bench.tell(Kind.BODY, b"x", sequence=7, more=True)
    await done(task)
    assert bench.broker.stream()[1:] == ([1], True, Reason.WORKER_LOST)
    assert len(bench.broker.of(Kind.RESPONSE)) == 1


async def test_a_client_that_leaves_in_its_upload_ends_the_run(bench: Bench) -> None:
    """Nobody waits for the answer."""
    task = bench.deliver(body=UPLOAD, more=True)
    call = await bench.running()
    await call.body.read()
    bench.tell(Kind.BODY, b"", sequence=1, more=False, reason=Reason.CLIENT_GONE)
    with pytest.raises(ConnectionError):
        await call.body.read()
    await done(task)
    assert (bench.broker.kinds(), bench.app.cancelled, bench.settled()) == ([Kind.CLAIM], 1, ["ack"])


async def test_pieces_for_others_are_passed_over(bench: Bench) -> None:
    """For an attempt before, a request that has ended, one without a body to come, or from another edge."""
    task = bench.deliver(body=UPLOAD, more=True)
    whole = bench.deliver(name="whole")
    call = await bench.running(2)
    call = next(call for call in bench.app.calls if call.request.method == "POST")
    bench.tell(Kind.BODY, b"old", sequence=1, more=True, attempt=ATTEMPT - 1)
    bench.tell(Kind.BODY, b"ended", name="ended", sequence=1, more=True)
    bench.tell(Kind.BODY, b"whole", name="whole", sequence=1, more=True)
    bench.tell(Kind.BODY, b"other", edge="edge-2", sequence=1, more=True)
    bench.tell(Kind.PROBE)
    bench.tell(Kind.BODY, b"new", sequence=1, more=False)
    assert [await call.body.read() for _ in range(3)] == [b"first ", b"new", b""]
    for number in (0, 1):
        bench.app.finish(number)
    await done(task)
    await done(whole)
    assert (bench.settled(0), bench.settled(1), bench.app.cancelled) == (["ack"], ["ack"], 0)


async def test_a_redelivered_upload_is_not_run(bench: Bench) -> None:
    """As any other; also when its queue's deadline has passed meanwhile: the edge still sends it."""
    await done(bench.deliver(body=UPLOAD, more=True, redelivered=True, timeout=-1))
    assert (bench.app.calls, bench.broker.kinds(), bench.settled()) == ([], [Kind.REDELIVERED], ["ack"])


async def test_an_upgrade_is_claimed_and_carries_bytes_both_ways(bench: Bench) -> None:
    """They come as pieces of a body, though the request had none."""
    task = bench.deliver(upgrade="websocket")
    call = await bench.running()
    assert (call.request.upgrade, bench.broker.of(Kind.CLAIM)[0][0].credit) == ("websocket", WINDOW)
    await call.answer.start(101, [])
    await call.answer.write(b"to the client")
    await until(lambda: bench.broker.of(Kind.RESPONSE))
    bench.tell(Kind.BODY, b"from the client", sequence=1, more=True)
    assert await call.body.read() == b"from the client"
    bench.tell(Kind.BODY, b"", sequence=2, more=False)
    assert await call.body.read() == b""
    call.end()
    await done(task)
    ((head, payload),) = bench.broker.of(Kind.RESPONSE)
    assert (head.more, decode_response(payload, more=True).status) == (True, 101)
    assert bench.broker.stream()[2:] == (True, None)


# --- cancels


@pytest.mark.parametrize(
    "phase", ["claiming", "running", "reading", "head", "idle", "credit", "confirm", "detached", "cleaning"]
)
async def test_a_cancel_ends_a_run_in_every_phase(bench: Bench, brief: None, phase: str) -> None:
    """The application is cancelled, nothing more is sent, the slot is free, and nothing is left."""
    held = {"claiming": Kind.CLAIM, "head": Kind.RESPONSE, "confirm": Kind.BODY}.get(phase)
    if held is not None:
        bench.broker.held[held] = asyncio.Event()
    credit = 0 if phase == "credit" else WINDOW
    task = bench.deliver(body=UPLOAD, more=True, credit=credit)
    side: asyncio.Future[Any] | None = None
    if phase == "claiming":
        await until(lambda: bench.broker.tried)
    else:
        call = await bench.running()
        if phase == "reading":
            await call.body.read()
            side = asyncio.ensure_future(call.body.read())
        elif phase == "head":
            await call.stream()
            await until(lambda: bench.broker.tried == 2)
        elif phase != "running":
            await call.stream()
            await until(lambda: bench.broker.of(Kind.RESPONSE))
        if phase in ("credit", "confirm"):
            side = waiting = asyncio.ensure_future(call.stream_more(b"x" * 20 * CHUNK))
            assert await still(lambda: not waiting.done())
        if phase == "detached":
            await until(lambda: bench.settled() == ["ack"])
        if phase == "cleaning":
            bench.app.through.clear()
    sent = len(bench.broker.sent)
    bench.tell(Kind.CANCEL)
    bench.tell(Kind.CANCEL)
    if phase == "cleaning":
        await until(lambda: bench.app.cancelled)
        bench.tell(Kind.CANCEL)
        assert await still(lambda: not task.done())
        bench.app.through.set()
    await done(task)
    if side is not None:
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(side, 5)
    assert bench.app.cancelled == (0 if phase == "claiming" else 1)
    assert (len(bench.broker.sent), bench.settled(), bench.runner.running) == (sent, ["ack"], 0)
    await until(lambda: not bench.left_over())


async def test_a_request_that_was_cancelled_before_it_came_is_not_run(bench: Bench) -> None:
    """Nobody had claimed it, so every worker was told. Not told of, either, when it comes a second time."""
    bench.tell(Kind.CANCEL)
    await done(bench.deliver())
    await done(bench.deliver(body=UPLOAD, more=True, redelivered=True))
    assert (bench.app.calls, bench.broker.sent, bench.settled(0), bench.settled(1)) == ([], [], ["ack"], ["ack"])
    task = bench.deliver(name="another")
    await bench.running()
    bench.app.finish()
    await done(task)


def test_cancels_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for long nor in any number."""
    from rabbitbal.worker import cancels as module

    cancels = module.Cancels()
    monkeypatch.setattr(module, "MOST", 3)
    for name in "abcad":
        cancels.remember(name, 1)
    assert ([name for name in "abcd" if cancels.cover(name, 1)], len(cancels)) == (["a", "c", "d"], 3)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + module.MEMORY + 1)
    assert not cancels.cover("a", 1)
    cancels.remember("e", 1)
    assert len(cancels) == 1


async def test_a_cancel_is_not_for_the_attempts_behind_it(bench: Bench) -> None:
    """The edge has given up one, not the request: the next may come here."""
    bench.tell(Kind.CANCEL, attempt=ATTEMPT - 1)
    task = bench.deliver()
    await bench.running()
    bench.tell(Kind.CANCEL, attempt=ATTEMPT - 1)
    assert await still(lambda: not task.done())
    before = bench.deliver(attempt=ATTEMPT - 1)
    await done(before)
    bench.tell(Kind.CANCEL, attempt=ATTEMPT + 1)
    await done(task)
    assert (len(bench.app.calls), bench.app.cancelled, bench.settled(0)) == (1, 1, ["ack"])


async def test_a_request_older_than_the_worker_is_claimed_at_once() -> None:
    """Its cancel may have been told before this worker listened; the edge answers a claim with another."""
    bench = Bench(claim_after=300)
    bench.broker.since = time.time()
    task = bench.deliver(timeout=3600, sent=time.time() - 10)
    await until(lambda: Kind.CLAIM in bench.broker.kinds())
    bench.tell(Kind.CANCEL)
    await done(task)
    assert bench.settled() == ["ack"]


async def test_a_second_copy_of_what_runs_here_is_dropped(bench: Bench) -> None:
    """Its edge published twice, not knowing; pieces and credit could not be told apart. A new attempt is run."""
    task = bench.deliver()
    await bench.running()
    await done(bench.deliver())
    assert (len(bench.app.calls), bench.settled()) == (1, ["ack"])
    again = bench.deliver(attempt=ATTEMPT + 1)
    await bench.running(2)
    for number in (0, 1):
        bench.app.finish(number)
    await done(task)
    await done(again)


# --- slots


async def test_a_stream_that_lasts_leaves_its_slot(bench: Bench, brief: None) -> None:
    """The broker may hand over another request; the stream goes on and can still be broken or finished."""
    task, call = await bench.streaming(b"one")
    await until(lambda: bench.settled() == ["ack"])
    assert (bench.runner.running, task.done()) == (1, False)
    await call.answer.write(b"two")
    second = bench.deliver(name="second")
    await bench.running(2)
    bench.app.finish()
    await done(second)
    assert (bench.runner.running, bench.runner.most_running) == (1, 1)
    call.end()
    await done(task)
    assert bench.broker.stream()[2:] == (True, None)
    assert (bench.settled(0), bench.left_over()) == (["ack"], [])


async def test_only_so_many_streams_leave_their_slots(monkeypatch: pytest.MonkeyPatch, brief: None) -> None:
    """The next one does when there is room."""
    bench = Bench(streams=1)
    first, call = await bench.streaming(name="first")
    await until(lambda: bench.settled(0) == ["ack"])
    second, other = await bench.streaming(name="second")
    assert await still(lambda: bench.settled(1) == [])
    call.end()
    await done(first)
    await until(lambda: bench.settled(1) == ["ack"])
    other.end()
    await done(second)
    assert bench.left_over() == []


async def test_a_target_that_holds_threads_keeps_its_slots(bench: Bench, brief: None) -> None:
    """A slot is a thread."""
    bench.app.detachable = False
    task, call = await bench.streaming()
    assert await still(lambda: bench.settled() == [])
    call.end()
    await done(task)
    assert bench.settled() == ["ack"]


# --- leaving


async def test_a_worker_that_leaves_gives_streams_some_time(bench: Bench) -> None:
    """Those that go on and those that begin; whole responses take what they take."""
    first, call = await bench.streaming(b"a", name="first")
    second = bench.deliver(name="second")
    await bench.running(2)
    bench.runner.drain(0.05)
    third, _ = await bench.streaming(name="third")
    call.end()
    await done(first)
    await done(third)
    assert [envelope.reason for envelope, _ in bench.broker.of(Kind.BODY) if not envelope.more] == [
        None,
        Reason.WORKER_LOST,
    ]
    assert await still(lambda: not second.done())
    bench.app.finish(1)
    await done(second)
    await asyncio.wait_for(bench.runner.idle(), 1)


async def test_giving_up_ends_streams_and_hands_back_the_rest(bench: Bench, brief: None) -> None:
    """A stream, in a slot or not, cannot be another worker's."""
    detached, _ = await bench.streaming(name="detached")
    await until(lambda: bench.settled(0) == ["ack"])
    bench.app.detachable = False
    attached, _ = await bench.streaming(name="attached")
    upload = bench.deliver(name="upload", body=UPLOAD, more=True)
    await bench.running(3)
    await bench.runner.give_up()
    for task in (detached, attached, upload):
        await done(task)
    ends = {envelope.correlation_id: envelope.reason for envelope, _ in bench.broker.of(Kind.BODY)}
    assert ends == {"detached": Reason.WORKER_LOST, "attached": Reason.WORKER_LOST}
    assert [message.settled for message in bench.messages] == [["ack"], ["ack"], ["requeue"]]
    assert (bench.left_over(), bench.runner.running) == ([], 0)


async def test_a_lost_channel_ends_a_stream(bench: Bench) -> None:
    """With it went credit that was on its way. The edge is told by the other connection."""
    task, _ = await bench.streaming(b"half")
    bench.messages[0].channel_gone = True
    task.cancel()
    await done(task)
    assert bench.broker.stream() == (b"half", [1, 2], True, Reason.WORKER_LOST)
    assert (bench.settled(), bench.app.cancelled, bench.left_over()) == ([], 1, [])


async def test_the_end_of_a_stream_does_not_wait_for_its_application(bench: Bench) -> None:
    """A thread may take its time; the client must not."""
    task, _ = await bench.streaming(b"half")
    bench.app.through.clear()
    bench.runner.drain(0.0)
    await until(lambda: bench.broker.stream()[2])
    assert (bench.broker.stream()[3], task.done()) == (Reason.WORKER_LOST, False)
    bench.app.through.set()
    await done(task)


# --- copies, and requests of a partition


@pytest.mark.parametrize("leg", [Leg.FIRST, Leg.HEDGE])
async def test_a_copy_that_may_lose_is_claimed_at_once(bench: Bench, leg: Leg) -> None:
    """So that the edge knows whom to cancel when another copy was faster."""
    task = bench.deliver(leg=leg)
    await until(lambda: bench.broker.kinds() == [Kind.CLAIM])
    assert (bench.broker.of(Kind.CLAIM)[0][0].credit, bench.app.running) == (None, 1)
    bench.app.finish()
    await done(task)
    assert bench.broker.kinds() == [Kind.CLAIM, Kind.RESPONSE]


@pytest.mark.parametrize("leg", [Leg.PRIMARY, Leg.ALL, Leg.SHADOW])
async def test_other_copies_are_claimed_when_they_last(bench: Bench, leg: Leg) -> None:
    """As requests without copies are."""
    task = bench.deliver(leg=leg)
    await bench.running()
    assert await still(lambda: bench.broker.kinds() == [])
    bench.app.finish()
    await done(task)


async def test_a_request_of_a_partition_is_claimed_before_it_is_started(bench: Bench) -> None:
    """One that comes back unclaimed was never started, whatever its method. It is claimed once."""
    bench.broker.held[Kind.CLAIM] = asyncio.Event()
    task = bench.deliver(partition="7")
    await until(lambda: bench.broker.tried == 1)
    assert await still(lambda: bench.app.running == 0)
    bench.broker.held.pop(Kind.CLAIM).set()
    await bench.running()
    bench.app.finish()
    await done(task)
    assert bench.broker.kinds() == [Kind.CLAIM, Kind.RESPONSE]
    assert (bench.broker.of(Kind.CLAIM)[0][0].credit, bench.settled(), bench.left_over()) == (None, ["ack"], [])


async def test_a_request_of_a_partition_has_no_body_to_come(bench: Bench) -> None:
    """A piece for it is nobody's, and the request goes on."""
    task = bench.deliver(partition="7")
    await bench.running()
    bench.tell(Kind.BODY, b"x", sequence=1, more=False)
    bench.app.finish()
    await done(task)
    assert bench.broker.kinds() == [Kind.CLAIM, Kind.RESPONSE]


async def test_an_upload_of_a_partition_is_claimed_once_and_with_credit(bench: Bench) -> None:
    """The rule for uploads holds as it is."""
    task = bench.deliver(partition="7", body=UPLOAD, more=True)
    call = await bench.running()
    assert [envelope.credit for envelope, _ in bench.broker.of(Kind.CLAIM)] == [WINDOW]
    bench.tell(Kind.BODY, b"second", sequence=1, more=False)
    assert [await call.body.read(), await call.body.read(), await call.body.read()] == [b"first ", b"second", b""]
    bench.app.finish()
    await done(task)


async def test_a_request_of_a_partition_is_cancelled_at_its_deadline(bench: Bench) -> None:
    """The edge knows who runs it, and says `worker-timeout`."""
    await done(bench.deliver(partition="7", timeout=0.05))
    assert (bench.app.cancelled, bench.broker.kinds(), bench.settled()) == (1, [Kind.CLAIM], ["ack"])


@pytest.mark.parametrize(("verdict", "settled"), [(Verdict.UNROUTABLE, "ack"), (None, "requeue")])
async def test_a_request_of_a_partition_that_cannot_be_claimed_is_not_started(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, verdict: Verdict | None, settled: str
) -> None:
    """Its edge is gone, or the broker cannot be reached: then somebody else may."""
    monkeypatch.setattr(replies, "NOTICE_GRACE", 0.02)
    if verdict is None:
        bench.broker.up.clear()
    else:
        bench.broker.by_kind[Kind.CLAIM] = type(bench.broker.verdicts)([verdict])
    await done(bench.deliver(partition="7"))
    assert (bench.app.calls, bench.settled()) == ([], [settled])


# --- requests that wait for a slot


async def test_a_request_that_waits_for_a_slot_is_not_begun(bench: Bench) -> None:
    """And is in hand all the same: the worker is not idle."""
    slots = Slots(1)
    first = bench.deliver(name="one", turn=Turn(Intake(slots)))
    await bench.running()
    second = bench.deliver(name="two", turn=Turn(Intake(slots)), partition="7")
    assert await still(lambda: len(bench.app.calls) == 1 and bench.broker.kinds() == [])
    assert (bench.runner.running, bench.runner.most_running) == (2, 1)
    slots.free()
    await bench.running(2)
    for number in (0, 1):
        bench.app.finish(number)
    await done(first)
    await done(second)


async def test_a_request_that_waited_too_long_is_not_run(bench: Bench) -> None:
    """Its deadline passed, or it was cancelled, while it waited: the edge has answered."""
    slots = Slots(1)
    assert await Turn(Intake(slots)).take()
    late = bench.deliver(name="late", timeout=0.02, turn=Turn(Intake(slots)))
    unwanted = bench.deliver(name="unwanted", turn=Turn(Intake(slots)))
    bench.tell(Kind.CANCEL, name="unwanted")
    assert await still(lambda: not late.done(), 0.04)
    slots.free()
    await done(late)
    slots.free()
    await done(unwanted)
    assert (bench.app.calls, bench.broker.sent) == ([], [])
    assert (bench.settled(0), bench.settled(1)) == (["ack"], ["ack"])


async def test_a_request_that_gets_no_slot_goes_back_untold(bench: Bench) -> None:
    """Nobody claimed it."""
    intake = Intake(Slots(1))
    intake.close()
    await done(bench.deliver(partition="7", turn=Turn(intake)))
    assert (bench.app.calls, bench.broker.sent, bench.settled()) == ([], [], ["requeue"])


async def test_a_redelivered_request_waits_for_no_slot(bench: Bench) -> None:
    """It is not run here: the edge hears of it at once."""
    slots = Slots(1)
    assert await Turn(Intake(slots)).take()
    await done(bench.deliver(partition="7", redelivered=True, turn=Turn(Intake(slots))))
    assert (bench.broker.kinds(), bench.settled()) == ([Kind.REDELIVERED], ["ack"])
