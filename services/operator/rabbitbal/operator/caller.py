"""A small edge: publishes requests to one pool, and takes in the answers (docs/wire-format.md).

What an edge of the deployment does besides, it leaves out: it keeps no spool, so a request's body travels with its
head, and it does not look whether workers are there, so one that is lost in the middle of a streamed answer is noticed
at the end of the request's time.
"""

import asyncio
import contextlib
import hashlib
import time
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Protocol

from rabbitbal.runtime.broker import Disconnected, Verdict
from rabbitbal.runtime.streams import Broken, Inlet
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.flow import FIRST_WINDOW
from rabbitbal.wire.message import Request, Response, decode_response, encode_request, is_whole, without_body
from rabbitbal.wire.reasons import Reason, status_of

PUBLISH = 10.0
MAX_LOSSES = 3
# Of a streamed body so much is kept to be compared; of the rest only the digest.
KEPT = 1024 * 1024


class Publish(Protocol):
    async def __call__(
        self, exchange: str, key: str, envelope: Envelope, body: bytes = b"", *, timeout: float
    ) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request ended. ``response`` is None where there is a ``reason``. ``size`` and ``sha256`` are of the body
    when it is whole; ``response`` may have its beginning only. Times are in milliseconds."""

    reason: Reason | None
    response: Response | None
    total_ms: float
    app_ms: float | None = None
    size: int = 0
    sha256: str | None = None
    worker: str | None = None
    attempt: int = 1


class _Call:
    """A request in flight."""

    def __init__(self, envelope: Envelope, request: Request) -> None:
        self.envelope = envelope
        self.request = request
        self.attempt = 1
        self.losses = 0
        self.claimed_by: str | None = None
        self.head: asyncio.Future[tuple[Envelope, Response | None]] = asyncio.get_running_loop().create_future()
        """The response or its head, or why there is none."""
        self.inlet: Inlet | None = None
        self.streaming: tuple[str, int] | None = None
        self.duration: int | None = None

    def settle(self, envelope: Envelope, response: Response | None = None) -> None:
        if not self.head.done():
            self.head.set_result((envelope, response))

    def fail(self, reason: Reason) -> None:
        self.settle(replace(self.envelope, reason=reason))


class Caller:
    """Calls one pool. ``name`` is the edge that it is; ``publish`` raises Disconnected."""

    def __init__(self, name: str, pool: str, publish: Publish) -> None:
        self._name = name
        self._pool = pool
        self._publish_message = publish
        self._calls: dict[str, _Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def settled(self) -> None:
        """What is said besides, and nobody waits for, has left."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PUBLISH)

    def lost(self) -> None:
        """What was in flight may be lost with a connection. A measurement does not begin it again."""
        for call in self._calls.values():
            call.fail(Reason.BROKER_DOWN)
            if call.inlet is not None:
                call.inlet.fail(Broken("the broker was lost", Reason.BROKER_DOWN))

    # --- a request

    async def call(self, request: Request, *, repeatable: bool, timeout: float) -> Answer:
        """Publish it and wait for all of its answer. When this is cancelled, its worker is told."""
        loop = asyncio.get_running_loop()
        began, now = loop.time(), time.time()
        envelope = Envelope(
            kind=Kind.REQUEST,
            correlation_id=token_hex(16),
            app_id=self._name,
            reply_to=topology.response_key(self._name),
            expiration=int(timeout * 1000),
            deadline=int((now + timeout) * 1000),
            sent=int(now * 1000),
            repeatable=repeatable,
            route=topology.REPLAY,
            credit=FIRST_WINDOW,
        )
        call = self._calls[envelope.correlation_id] = _Call(envelope, request)
        reason: Reason | None = Reason.CLIENT_GONE
        response: Response | None = None
        size, digest = 0, None
        try:
            async with asyncio.timeout(timeout):
                await self._publish(call)
                reply, response = await asyncio.shield(call.head)
                if call.inlet is not None and response is not None:
                    body, size, digest = await self._body(call, response)
                    response = replace(response, body=body)
                reason = reply.reason
        except TimeoutError:
            claimed = call.claimed_by is not None or call.inlet is not None
            reason = Reason.WORKER_TIMEOUT if claimed else Reason.QUEUE_TIMEOUT
        except Broken as broken:
            reason = broken.reason or Reason.WORKER_LOST
        finally:
            del self._calls[envelope.correlation_id]
            total = loop.time() - began
            self._over(call, reason, size, total)
        if response is not None and call.inlet is None:
            size = len(response.body)
        app = None if call.duration is None else call.duration / 1000
        reply = call.head.result()[0] if call.head.done() else envelope
        worker = reply.app_id if reply.kind is Kind.RESPONSE else None
        return Answer(
            reason, response if reason is None else None, total * 1000, app, size, digest, worker, call.attempt
        )

    async def _publish(self, call: _Call) -> None:
        envelope = replace(call.envelope, attempt=call.attempt)
        exchange, key = topology.pool_exchange(self._pool), topology.request_key(topology.REPLAY)
        payload = encode_request(call.request)
        try:
            verdict = await self._publish_message(exchange, key, envelope, payload, timeout=PUBLISH)
        except Disconnected:
            call.fail(Reason.BROKER_DOWN)
            return
        if verdict is not Verdict.ROUTED:
            call.fail(Reason.OVERLOADED if verdict is Verdict.REJECTED else Reason.UNROUTABLE)

    async def _body(self, call: _Call, head: Response) -> tuple[bytes, int, str]:
        """What is kept of it, and the size and the digest of all. Raises Broken."""
        assert call.inlet is not None  # noqa: S101 - the caller has looked
        kept, digest, size = bytearray(), hashlib.sha256(), 0
        piece = head.body
        while True:
            digest.update(piece)
            size += len(piece)
            kept += piece[: KEPT - len(kept)]
            piece = await call.inlet.read()
            if not piece:
                return bytes(kept), size, digest.hexdigest()

    def _over(self, call: _Call, reason: Reason | None, size: int, total: float) -> None:
        """Tell the worker that still has it, and the tap, what no response says."""
        name, inlet = call.envelope.correlation_id, call.inlet
        if inlet is not None and call.streaming is not None and not inlet.ended:
            self._cancel(name, *call.streaming)
        elif not call.head.done() and (call.claimed_by is not None or reason is Reason.CLIENT_GONE):
            # Nobody starts a request behind its deadline; one that is given up before it, whoever has it is told.
            self._cancel(name, call.claimed_by or topology.EVERY_WORKER, call.attempt)
        told = call.head.done() and call.head.result()[0].kind is Kind.RESPONSE
        if told and inlet is None:
            return
        response = call.head.result()[1] if told else None
        ended = Envelope(
            kind=Kind.ENDED,
            correlation_id=name,
            app_id=self._name,
            attempt=call.attempt,
            reason=reason,
            status=response.status if response is not None else status_of(reason or Reason.EDGE_ERROR),
            size=size,
            duration=int(total * 1e6),
            sent=int(time.time() * 1000),
            route=topology.REPLAY,
        )
        # The tap may have no copy of what the broker did not take.
        unseen = reason in (Reason.UNROUTABLE, Reason.BROKER_DOWN)
        head = encode_request(without_body(call.request)) if unseen else b""
        self._tell(topology.EVENTS, f"ended.{self._name}", ended, head)

    # --- what workers say

    def take(self, envelope: Envelope, payload: bytes) -> None:
        """A worker's message. Raises WireError where it makes no sense."""
        call = self._calls.get(envelope.correlation_id)
        if call is None:
            if envelope.kind in (Kind.CLAIM, Kind.BODY) or (envelope.kind is Kind.RESPONSE and envelope.more):
                self._cancel(envelope.correlation_id, envelope.app_id, envelope.attempt)
        elif envelope.kind is Kind.RESPONSE:
            self._answered(call, envelope, payload)
        elif envelope.kind is Kind.CLAIM:
            if envelope.attempt == call.attempt and call.claimed_by is None:
                call.claimed_by = envelope.app_id
        elif envelope.kind is Kind.REDELIVERED:
            if envelope.attempt == call.attempt:
                self._redelivered(call)
        elif envelope.kind is Kind.BODY and call.inlet and call.streaming == (envelope.app_id, envelope.attempt):
            # Until the head, where it says so: that is what the tap records.
            call.duration = call.duration or envelope.duration
            call.inlet.receive(envelope.sequence, payload, more=bool(envelope.more), reason=envelope.reason)

    def _answered(self, call: _Call, envelope: Envelope, payload: bytes) -> None:
        if call.head.done():
            return
        call.duration = envelope.duration
        try:
            response = decode_response(payload, more=bool(envelope.more))
            if not envelope.more and not is_whole(response, call.request.method):
                raise WireError("the body is not of the declared length")
        except WireError:
            call.settle(replace(envelope, reason=Reason.BAD_RESPONSE))
            raise
        if envelope.more:
            worker, about = envelope.app_id, replace(_of(envelope), app_id=self._name)
            call.streaming = (worker, envelope.attempt)
            call.inlet = Inlet(
                lambda credit: self._tell(topology.STREAMS, worker, replace(about, credit=credit)), FIRST_WINDOW
            )
        call.settle(envelope, response)

    def _redelivered(self, call: _Call) -> None:
        """The worker that had it is gone, and the one that has it now did not run it."""
        if call.inlet is not None:
            call.inlet.fail(Broken("the worker was lost", Reason.WORKER_LOST))
            return
        call.losses += 1
        if call.losses >= MAX_LOSSES:
            call.fail(Reason.POISON)
        elif not call.envelope.repeatable:
            call.fail(Reason.WORKER_LOST)
        else:
            call.attempt += 1
            call.claimed_by = None
            self._keep(asyncio.ensure_future(self._publish(call)))

    # --- what nobody waits for

    def _cancel(self, name: str, worker: str, attempt: int) -> None:
        self._tell(topology.STREAMS, worker, Envelope(Kind.CANCEL, name, self._name, attempt=attempt))

    def _tell(self, exchange: str, key: str, envelope: Envelope, body: bytes = b"") -> None:
        self._keep(asyncio.ensure_future(self._told(exchange, key, envelope, body)))

    async def _told(self, exchange: str, key: str, envelope: Envelope, body: bytes) -> None:
        with contextlib.suppress(Disconnected):
            await self._publish_message(exchange, key, envelope, body, timeout=PUBLISH)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _of(envelope: Envelope) -> Envelope:
    return Envelope(Kind.CREDIT, envelope.correlation_id, envelope.app_id, attempt=envelope.attempt)
