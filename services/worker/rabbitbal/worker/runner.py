"""The life of a request in a worker: checked, run, answered, acknowledged. In that order, so that nothing is lost."""

import asyncio
import time
from dataclasses import replace
from typing import Protocol

import structlog

from rabbitbal.runtime.broker import Delivery, Disconnected, Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.message import decode_request, encode_response
from rabbitbal.wire.reasons import Reason, error_response
from rabbitbal.worker.targets import AppRaised, BadResponse, Target

log = structlog.get_logger()

PUBLISH_TIMEOUT = 10.0
RETRY_PERIOD = 0.2
# How long a finished answer is kept for a broker that is away.
ANSWER_GRACE = 30.0


class Broker(Protocol):
    """What the runner needs of the broker."""

    async def wait_up(self) -> None: ...

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict: ...


class Runner:
    """Runs requests. One `handle` call is one occupied slot: prefetch keeps their number at the pool's slots."""

    def __init__(self, worker: str, broker: Broker, target: Target, claim_after: float) -> None:
        self._worker = worker
        self._broker = broker
        self._target = target
        self._claim_after = claim_after
        self._running: dict[asyncio.Task[None], tuple[str, Delivery]] = {}
        self._claims: set[asyncio.Future[bool]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._giving_up = False
        self.most_running = 0

    @property
    def running(self) -> int:
        return len(self._running)

    async def idle(self) -> None:
        """Until nothing runs."""
        await self._idle.wait()

    async def give_up(self) -> None:
        """Hand everything that runs back to the broker, at once, for another worker."""
        self._giving_up = True
        for task, (_, delivery) in list(self._running.items()):
            await delivery.requeue()
            task.cancel()
        log.warning("worker.gave_up", requests=len(self._running))

    async def handle(self, delivery: Delivery, pool: str) -> None:
        """One delivery, from its arrival to its ack. Never raises."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in a coroutine
        try:
            envelope = delivery.envelope()
            if envelope.kind is not Kind.REQUEST or envelope.reply_to is None:
                raise WireError(f"kind {envelope.kind} has no place in a pool's queue")
        except WireError as error:
            await self._dead(delivery, error)
            return
        self._running[task] = (envelope.correlation_id, delivery)
        self._idle.clear()
        self.most_running = max(self.most_running, len(self._running))
        try:
            await self._run(delivery, envelope, pool)
        except asyncio.CancelledError:
            # Cancelled by the edge (nobody waits) or by `give_up` (already handed back). The task ends here either way.
            if not self._giving_up:
                await delivery.ack()
        except WireError as error:
            await self._dead(delivery, error)
        except Exception:
            # Whoever gets it next asks the edge whether it may run again.
            log.exception("worker.defect", id=envelope.correlation_id)
            await delivery.requeue()
        finally:
            del self._running[task]
            if not self._running:
                self._idle.set()

    async def _run(self, delivery: Delivery, envelope: Envelope, pool: str) -> None:
        if delivery.redelivered:
            # Someone had it before and may have started it. The edge knows whether it may run again.
            notice = self._reply(envelope, Kind.REDELIVERED, pool)
            if await self._tell(envelope, notice, b"", PUBLISH_TIMEOUT):
                await delivery.ack()
            else:
                await delivery.requeue()
            return
        left = (envelope.deadline or 0) / 1000 - time.time()
        if left <= 0:
            await delivery.ack()
            return
        request = decode_request(delivery.body)
        claim = self._claim(envelope, pool, left)
        started = time.perf_counter()
        reason: Reason | None = None
        try:
            async with asyncio.timeout(left):
                response = await self._target(request)
            payload = encode_response(response)
        except TimeoutError:
            log.warning("request.timeout", id=envelope.correlation_id, target=_printable(request.target))
            await delivery.ack()
            return
        except AppRaised as error:
            log.error(
                "app.raised", id=envelope.correlation_id, target=_printable(request.target), exc_info=error.__cause__
            )
            reason = Reason.APP_ERROR
        except (BadResponse, WireError) as error:
            log.error(
                "app.bad_response", id=envelope.correlation_id, target=_printable(request.target), error=str(error)
            )
            reason = Reason.BAD_RESPONSE
        finally:
            if claim is not None:
                claim.cancel()
        if reason is not None:
            payload = encode_response(error_response(reason))
        duration = int((time.perf_counter() - started) * 1e6)
        answer = replace(
            self._reply(envelope, Kind.RESPONSE, pool), duration=duration, reason=reason, sent=int(time.time() * 1000)
        )
        await self._tell(envelope, answer, payload, ANSWER_GRACE)
        await delivery.ack()

    def cancel(self, correlation_id: str) -> None:
        """The edge says that nobody waits for this request any longer."""
        for task, (running, delivery) in self._running.items():
            # An acknowledgement that was cut off would hold its slot for ever.
            if running == correlation_id and not delivery.settled:
                log.info("request.cancelled", id=correlation_id)
                task.cancel()

    def _claim(self, envelope: Envelope, pool: str, left: float) -> "asyncio.TimerHandle | None":
        """Say who runs the request once it has run for a while; at once when the deadline is near."""
        delay = self._claim_after if left > 2 * self._claim_after else 0.0
        loop = asyncio.get_running_loop()
        return loop.call_later(delay, self._spawn_claim, envelope, pool)

    def _spawn_claim(self, envelope: Envelope, pool: str) -> None:
        task = asyncio.ensure_future(
            self._tell(envelope, self._reply(envelope, Kind.CLAIM, pool), b"", PUBLISH_TIMEOUT)
        )
        # The loop holds tasks weakly.
        self._claims.add(task)
        task.add_done_callback(self._claims.discard)

    def _reply(self, envelope: Envelope, kind: Kind, pool: str) -> Envelope:
        return Envelope(
            kind=kind,
            correlation_id=envelope.correlation_id,
            app_id=self._worker,
            attempt=envelope.attempt,
            pool=pool,
            traceparent=envelope.traceparent,
        )

    async def _tell(self, envelope: Envelope, message: Envelope, payload: bytes, grace: float) -> bool:
        """Publish to the edge that waits. True when the broker has it, or when that edge is no more."""
        assert envelope.reply_to is not None  # noqa: S101 - checked on arrival
        return await self._publish(topology.RESPONSES, envelope.reply_to, message, payload, grace)

    async def _publish(self, exchange: str, key: str, message: Envelope, payload: bytes, grace: float) -> bool:
        """Publish, again and again within the grace. True when the broker took it or had no queue for it."""
        try:
            async with asyncio.timeout(grace):
                while True:
                    await self._broker.wait_up()
                    try:
                        verdict = await self._broker.publish(exchange, key, message, payload, timeout=PUBLISH_TIMEOUT)
                    except Disconnected:
                        await asyncio.sleep(RETRY_PERIOD)
                        continue
                    if verdict is not Verdict.REJECTED:
                        return True
                    await asyncio.sleep(RETRY_PERIOD)
        except TimeoutError:
            log.warning("worker.unsent", kind=message.kind.value, id=message.correlation_id)
            return False

    async def _dead(self, delivery: Delivery, error: WireError) -> None:
        """A message that is none of ours is kept for people to look at."""
        log.warning("worker.bad_message", error=str(error))
        envelope = Envelope(
            kind=Kind.REQUEST,
            correlation_id="malformed",
            app_id=self._worker,
            reason=Reason.BAD_REQUEST,
            error=str(error),
        )
        if await self._publish(topology.DEAD, "", envelope, delivery.body, PUBLISH_TIMEOUT):
            await delivery.ack()
        else:
            await delivery.requeue()


def _printable(target: bytes) -> str:
    return target[:200].decode("latin-1")
