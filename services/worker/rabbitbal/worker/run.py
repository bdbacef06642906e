"""One request in a worker, from its start to its ack.

Theory of operation
-------------------
A run is the task that the delivery came in. It calls the target, with a `RequestBody` to read and a `StreamedAnswer` to
write, and is the way by which that answer leaves. It ends in exactly one of these:

* **answered**: the broker has confirmed the whole response, or the last piece of it, and then the request is acked. A
  target that fails is answered for while nothing has left (`app-error`, `bad-response`); later the stream ends with
  that reason, and the edge breaks the client's connection;
* **stopped**: `stop` says why, once, and cancels the task wherever it is: in the target, waiting for credit, for a
  confirm, for the body. Whatever the target raises then is no news. The request is acked when the target is through.
  - *unwanted*: the edge cancelled it, is gone, or the client left in its upload. Nothing is sent;
  - *broken*: a piece of either body was lost, or the worker leaves. The stream ends with `worker-lost`, and if there is
    none yet, that is the answer;
  - *handed back*: it is another worker's (given back, or the channel was lost and the broker does it). A stream cannot
    be another's: it ends with `worker-lost`.

The acknowledgement itself is not cut off by a stop: half an ack would hold its slot for as long as the worker lives.

Who runs what: a request whose body is still to come, or that asks for an upgrade, is *claimed* before the target is
called, as the claim carries the credit that the edge needs to go on; an upload that was never claimed was never
started. The same is so for a request of a partition, which may have waited in this worker for a slot: one that goes
back unclaimed may be repeated, whatever it is. Other requests are claimed when they last, so that the edge knows whom
to cancel, and at once where it is one of several copies, of which all but one are cancelled.

A stream that lasts leaves its slot (*detached*): the request is acked, the run goes on. Until then the broker hands
the request to nobody else, and afterwards nobody could go on with it either.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from rabbitbal.runtime.broker import Delivery, Disconnected, Verdict
from rabbitbal.runtime.streams import Broken, Inlet
from rabbitbal.wire.envelope import Envelope, Leg
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.reasons import Reason
from rabbitbal.worker.answer import StreamedAnswer
from rabbitbal.worker.body import RequestBody
from rabbitbal.worker.means import Means, Stop
from rabbitbal.worker.replies import Replies
from rabbitbal.worker.targets.contract import AppRaised, BadResponse

log = structlog.get_logger()

# Seconds of streaming after which a run leaves its slot, and between attempts to.
DETACH_AFTER = 1.0
# Seconds between claims of a run with a body in pieces.
REMIND_AFTER = 10.0
# Seconds for the end of a stream that is broken off.
LAST_WORDS = 1.0


class Run:
    """``delivery`` is that of ``envelope``; it has been looked at, and is to be started now, in the current task."""

    def __init__(self, delivery: Delivery, envelope: Envelope, pool: str, request: Request, means: Means) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in a coroutine
        self.delivery = delivery
        self.envelope = envelope
        self.streaming = False
        """The edge has the head, and the body follows."""
        self._task = task
        self._request = request
        self._means = means
        self._answer = StreamedAnswer(request, self, envelope.credit or 0)
        # After an upgrade the client's bytes come as the pieces of a body do.
        self._inlet = Inlet(self._grant) if envelope.more or envelope.upgrade else None
        self._replies = Replies(means.broker, means.worker, envelope, pool)
        self._stopped: Stop | None = None
        self._settling = False
        self._watching = False
        self._farewell: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    # --- for the runner

    async def live(self) -> None:
        """Until the request is settled. Never raises."""
        try:
            await self._work()
        except asyncio.CancelledError:
            await self._end_stopped()
        except Exception:
            if self._stopped is None:
                log.exception("worker.defect", id=self.envelope.correlation_id)
                # Whoever gets it next asks the edge whether it may run again.
                self._begin_stop(Stop.HANDED_BACK)
                if not self.streaming:
                    await self.delivery.requeue()
            await self._end_stopped()
        finally:
            self._no_timers()
            if self._watching:
                self._means.prober.forget(self.envelope.app_id)
            self._means.detached.discard(self)
            self._answer.abandon()

    def stop(self, why: Stop) -> None:
        """End it, wherever it is. The first reason counts; a run that is being acknowledged is over."""
        if self._stopped is None and not self._settling:
            self._begin_stop(why)
            self._task.cancel()

    def limit(self, seconds: float) -> None:
        """Break the stream if it goes on for longer."""
        self._later(seconds, self._break, "the worker leaves")

    def receive(self, envelope: Envelope, payload: bytes) -> None:
        """A piece of the request's body."""
        if self._inlet is None or self._stopped is not None:
            log.debug("worker.late_piece", id=envelope.correlation_id)
            return
        try:
            self._inlet.receive(envelope.sequence, payload, more=envelope.more or False, reason=envelope.reason)
        except WireError as error:
            if not self._answer.finished:
                self._break(str(error))
            return
        if envelope.reason is not None:
            # Whatever it was, the edge has told its client.
            self.stop(Stop.UNWANTED)

    def credit(self, credit: int) -> None:
        """The edge takes so much of the response's body."""
        self._answer.grant(credit)

    # --- the work

    async def _work(self) -> None:
        if self._inlet is not None or self.envelope.partition is not None:
            verdict = await self._replies.claim(self._inlet.credit if self._inlet is not None else None)
            if verdict is not Verdict.ROUTED:
                self._settling = True
                await (self.delivery.ack() if verdict is Verdict.UNROUTABLE else self.delivery.requeue())
                return
        if self._inlet is not None:
            self._watch()
            self._later(REMIND_AFTER, self._remind)
        else:
            self._bound()
        reason = await self._call()
        if self._stopped is None:
            if reason is not None and not self._answer.fail(reason):
                await self._answer_for(reason)
            else:
                await self._answer.sent()
        if self._stopped is not None:
            await self._end_stopped()
            return
        self._settling = True
        await self.delivery.ack()

    def _bound(self) -> None:
        """Times of a request that is whole. With others the edge keeps the time."""
        left = (self.envelope.deadline or 0) / 1000 - time.time()
        self._later(left, self._expire)
        if self.envelope.partition is not None:
            return
        delay = self._means.claim_after
        # A cancel may have been told before this worker could hear it, and a claim asks for it anew. Near its deadline
        # a request's timeout would be told as one in the queue.
        raced = self.envelope.leg is Leg.FIRST or self.envelope.leg is Leg.HEDGE
        if raced or (self.envelope.sent or 0) / 1000 < self._means.broker.since or left <= 2 * delay:
            delay = 0.0
        self._later(delay, self._claim)

    async def _call(self) -> Reason | None:
        """Call the target. Why it failed, or None."""
        self._replies.start()
        body = RequestBody(self._request.body, self._inlet)
        subject = {"id": self.envelope.correlation_id, "target": _printable(self._request.target)}
        try:
            await self._means.target(self._request, body, self._answer)
            if not self._answer.finished:
                raise BadResponse("the target returned without finishing its answer")
        except AppRaised as error:
            if self._stopped is None:
                log.error("app.raised", **subject, exc_info=error.__cause__)
            return Reason.APP_ERROR
        except BadResponse as error:
            if self._stopped is None:
                log.error("app.bad_response", **subject, error=str(error))
            return Reason.BAD_RESPONSE
        except ConnectionError as error:
            # The client is lost as far as the target can see; mostly because the run was stopped.
            if self._stopped is None:
                log.info("request.client_lost", **subject, error=str(error))
                self._begin_stop(Stop.BROKEN)
        return None

    def _expire(self) -> None:
        log.warning("request.timeout", id=self.envelope.correlation_id, target=_printable(self._request.target))
        self.stop(Stop.UNWANTED)

    def _claim(self) -> None:
        async def claim() -> None:
            await self._replies.claim()

        self._means.spawn(claim())

    def _remind(self) -> None:
        """Claim it again: an edge that was cut off when it gave this request up told nobody, and cancels it now."""
        self._claim()
        self._later(REMIND_AFTER, self._remind)

    # --- the way out of the answer

    async def head(self, response: Response, *, more: bool) -> None:
        """Publish the response or its head."""
        self._no_timers()
        if not more:
            # That there is nobody to tell is no reason to keep the slot.
            await self._replies.whole(response)
            return
        verdict = await self._replies.head(response)
        if verdict is not Verdict.ROUTED:
            self.stop(Stop.UNWANTED)
            raise ConnectionResetError("the head could not be sent")
        self.streaming = True
        self._watch()
        self._later(REMIND_AFTER, self._remind)
        if self._means.stream_limit is not None:
            self.limit(self._means.stream_limit)
        if self._means.target.detachable:
            self._later(DETACH_AFTER, self._detach)

    async def piece(self, sequence: int, payload: bytes, more: bool, reason: Reason | None) -> None:
        """Publish a piece of the response's body."""
        try:
            verdict = await self._replies.piece(sequence, payload, more, reason)
        except Disconnected as error:
            self._break(str(error))
            raise ConnectionResetError("a piece could not be sent") from error
        if verdict is Verdict.UNROUTABLE:
            log.info("request.edge_gone", id=self.envelope.correlation_id, edge=self.envelope.app_id)
            self.stop(Stop.UNWANTED)
            raise ConnectionResetError("the edge is gone")

    def _detach(self) -> None:
        if self._stopped is not None or self._settling:
            return
        if len(self._means.detached) < self._means.streams:
            self._means.detached.add(self)
            self._means.spawn(self._leave_slot())
        else:
            self._later(DETACH_AFTER, self._detach)

    async def _leave_slot(self) -> None:
        await self.delivery.ack()

    async def _answer_for(self, reason: Reason) -> None:
        self._no_timers()
        await self._replies.error(reason)

    def _grant(self, credit: int) -> None:
        """The target has read; the edge may send more. Grants may overtake each other: only the largest counts."""

        async def grant() -> None:
            verdict = await self._replies.credit(credit)
            if verdict is Verdict.UNROUTABLE:
                self.stop(Stop.UNWANTED)

        if self._stopped is None:
            self._means.spawn(grant())

    # --- endings

    def _break(self, why: str) -> None:
        log.warning("request.broken", id=self.envelope.correlation_id, why=why)
        self.stop(Stop.BROKEN)

    def _begin_stop(self, why: Stop) -> None:
        self._stopped = why
        if self._inlet is not None:
            self._inlet.fail(Broken(f"the request is {why.value}"))
        if self.streaming and why is not Stop.UNWANTED:
            # At once, and not when the target is through: somebody waits in front of half a response.
            self._answer.silence()
            self._farewell = self._means.spawn(self._break_off())
        else:
            self._answer.abandon()

    async def _break_off(self) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self._answer.break_off(Reason.WORKER_LOST)
        except (TimeoutError, ConnectionError):
            # The edge finds out by its probes.
            log.info("request.end_unsent", id=self.envelope.correlation_id)

    async def _end_stopped(self) -> None:
        while self._task.cancelling():
            self._task.uncancel()
        if self._stopped is None:
            # The client library cancels what came over a channel that is gone.
            self._begin_stop(Stop.HANDED_BACK)
        if self._farewell is not None:
            await asyncio.wait((self._farewell,))
        elif self._stopped is Stop.BROKEN:
            await self._answer_for(Reason.WORKER_LOST)
        self._settling = True
        await self.delivery.ack()

    # --- small things

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._means.prober.watch(self.envelope.app_id)

    def _later(self, delay: float, action: Callable[..., None], *args: object) -> None:
        loop = asyncio.get_running_loop()
        # A run may last for days.
        self._timers = [timer for timer in self._timers if timer.when() > loop.time()]
        self._timers.append(loop.call_later(delay, action, *args))

    def _no_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()


def _printable(target: bytes) -> str:
    return target[:200].decode("latin-1")
