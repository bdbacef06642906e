"""What a worker has in hand: which deliveries are run, which edge's message is for which run, how it leaves them."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import structlog

from rabbitbal.runtime.broker import Delivery, Verdict
from rabbitbal.runtime.probing import Prober
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.message import decode_request
from rabbitbal.wire.reasons import Reason
from rabbitbal.worker.cancels import Cancels
from rabbitbal.worker.hearing import Hearing
from rabbitbal.worker.means import Means, Stay, Stop, Tally
from rabbitbal.worker.post import PUBLISH_TIMEOUT, Broker, post
from rabbitbal.worker.replies import Replies
from rabbitbal.worker.run import Run
from rabbitbal.worker.slots import Turn
from rabbitbal.worker.targets.contract import Target

log = structlog.get_logger()


class Runner:
    """Runs requests. One `handle` call is one occupied slot, until it is detached: prefetch keeps their number at the
    pool's slots. ``streams`` is how many more may run detached."""

    def __init__(self, worker: str, broker: Broker, target: Target, *, claim_after: float, streams: int) -> None:
        self._worker = worker
        self._broker = broker
        self._prober = Prober(self._probe, self.edge_gone)
        self._means = Means(worker, broker, target, self._prober, claim_after, streams)
        self._runs: dict[tuple[str, int], Run] = {}
        self._cancels = Cancels()
        self._hearing = Hearing(worker, broker)
        self._idle = asyncio.Event()
        self._idle.set()
        self.tallies: defaultdict[str, Tally] = defaultdict(Tally)
        """By pool."""
        self.running = 0
        """Requests in hand, among them detached ones and those that wait for a slot."""
        self.most_running = 0
        """Slots that were occupied at a time."""

    @property
    def streams(self) -> int:
        """Requests that run besides the slots."""
        return len(self._means.detached)

    async def idle(self) -> None:
        """Until nothing runs."""
        await self._idle.wait()

    async def probe(self) -> None:
        """Ask for the edges of long runs, until cancelled."""
        await self._prober.run()

    def drain(self, patience: float) -> None:
        """The worker leaves: streams get so many seconds from now on, and each that begins later from its beginning."""
        self._means.stream_limit = patience
        for run in self._runs.values():
            if run.streaming:
                run.limit(patience)

    async def give_up(self) -> None:
        """Hand everything that runs back to the broker, at once, for another worker; streams end."""
        log.warning("worker.gave_up", requests=self.running)
        for run in list(self._runs.values()):
            if not run.streaming:
                await run.delivery.requeue()
            run.stop(Stop.HANDED_BACK)

    async def handle(self, delivery: Delivery, pool: str, turn: Turn | None = None) -> None:
        """One delivery, from its arrival to its ack. Never raises. With ``turn`` it may have to wait for a slot."""
        self.running += 1
        self._idle.clear()
        stay = Stay(self.tallies[pool])
        try:
            if turn is None:
                stay.begin(delivery)
            await self._handle(delivery, pool, turn, stay)
        except WireError as error:
            await self._dead(delivery, error)
        except asyncio.CancelledError:
            # Its channel is gone, and nothing was begun. The task ends here either way.
            pass
        except Exception:
            log.exception("worker.defect")
            await delivery.requeue()
        finally:
            stay.end()
            self.running -= 1
            if not self.running:
                self._idle.set()

    async def _handle(self, delivery: Delivery, pool: str, turn: Turn | None, stay: Stay) -> None:
        envelope = delivery.envelope()
        if envelope.kind is not Kind.REQUEST or envelope.reply_to is None:
            raise WireError(f"kind {envelope.kind} has no place in a pool's queue")
        if not self._hearing.certain(envelope):
            there = await self._hearing.there(envelope.app_id)
            if not there:
                # Of an edge that is gone nobody waits for the answer.
                await (delivery.requeue() if there is None else delivery.ack())
                return
        if delivery.redelivered and not self._cancels.cover(envelope.correlation_id, envelope.attempt):
            # Someone had it before and may have started it. The edge knows whether it may run again.
            if await Replies(self._broker, self._worker, envelope, pool).redelivered() is not None:
                await delivery.ack()
            else:
                await delivery.requeue()
            return
        if turn is not None:
            if not await turn.take():
                await delivery.requeue()
                return
            stay.begin(delivery)
        late = (envelope.deadline or 0) / 1000 <= time.time()
        if late or self._cancels.cover(envelope.correlation_id, envelope.attempt):
            await delivery.ack()
            return
        running = (envelope.correlation_id, envelope.attempt)
        if running in self._runs:
            # An edge that lost its connection does not know whether it had published, and does it again.
            log.info("request.twice", id=envelope.correlation_id)
            await delivery.ack()
            return
        request = decode_request(delivery.body, more=envelope.more or False)
        if envelope.upgrade is not None:
            request = replace(request, upgrade=envelope.upgrade)
        run = Run(delivery, envelope, pool, request, self._means)
        self._runs[running] = run
        self.most_running = max(self.most_running, len(self._runs) - len(self._means.detached))
        try:
            await run.live()
        finally:
            del self._runs[running]

    # --- what edges tell this worker

    def told(self, envelope: Envelope, payload: bytes) -> None:
        """A message on the worker's own queue."""
        if envelope.kind is Kind.CANCEL:
            self._cancel(envelope.correlation_id, envelope.attempt)
        elif envelope.kind is Kind.BODY or envelope.kind is Kind.CREDIT:
            run = self._runs.get((envelope.correlation_id, envelope.attempt))
            if run is None or run.envelope.app_id != envelope.app_id:
                log.debug("worker.late_message", kind=envelope.kind.value, id=envelope.correlation_id)
            elif envelope.kind is Kind.BODY:
                run.receive(envelope, payload)
            else:
                run.credit(envelope.credit or 0)

    def edge_gone(self, edge: str) -> None:
        """Nobody waits for what came from there."""
        for run in self._of(lambda run: run.envelope.app_id == edge):
            log.info("request.edge_gone", id=run.envelope.correlation_id, edge=edge)
            run.stop(Stop.UNWANTED)

    def _cancel(self, correlation_id: str, attempt: int) -> None:
        """The edge says that nobody waits for this attempt any longer, nor for those before it."""
        # Also if it runs: another copy of it may be on its way.
        self._cancels.remember(correlation_id, attempt)
        cancelled = self._cancels.cover
        for run in self._of(lambda run: cancelled(run.envelope.correlation_id, run.envelope.attempt)):
            log.info("request.cancelled", id=correlation_id)
            run.stop(Stop.UNWANTED)

    def _of(self, chosen: Callable[[Run], bool]) -> list[Run]:
        return [run for run in self._runs.values() if chosen(run)]

    async def _probe(self, edge: str) -> Verdict:
        message = Envelope(kind=Kind.PROBE, correlation_id="probe", app_id=self._worker)
        key = topology.body_key(edge)
        return await self._broker.publish(topology.RESPONSES, key, message, b"", timeout=PUBLISH_TIMEOUT)

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
        verdict = await post(self._broker, topology.DEAD, "", envelope, delivery.body, grace=PUBLISH_TIMEOUT)
        if verdict is not None:
            await delivery.ack()
        else:
            await delivery.requeue()
