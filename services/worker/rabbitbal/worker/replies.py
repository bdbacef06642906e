"""What a worker tells the edge about one request: the messages, and how long each is tried."""

import time
from typing import Any

from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.message import Response, encode_response
from rabbitbal.wire.reasons import Reason, error_response
from rabbitbal.worker.post import Broker, PiecePost, post

# Of what can be said again, or is of no use later.
NOTICE_GRACE = 10.0
# How long a finished answer is kept for a broker that is away.
ANSWER_GRACE = 30.0


class Replies:
    """All return what the broker did: ROUTED, UNROUTABLE, or None where it could not be told within the grace."""

    def __init__(self, broker: Broker, worker: str, request: Envelope, pool: str) -> None:
        self._broker = broker
        self._worker = worker
        self._request = request
        self._pool = pool
        self._pieces: PiecePost | None = None
        self._started = time.perf_counter()

    def start(self) -> None:
        """From now on the time of the application is taken."""
        self._started = time.perf_counter()

    async def redelivered(self) -> Verdict | None:
        return await self._tell(self._about(Kind.REDELIVERED), b"", NOTICE_GRACE)

    async def claim(self, credit: int | None = None) -> Verdict | None:
        """``credit`` is for the rest of the request's body."""
        message = self._about(Kind.CLAIM, credit=credit, sent=_now(), duration=self._duration())
        return await self._tell(message, b"", NOTICE_GRACE)

    async def whole(self, response: Response, reason: Reason | None = None) -> Verdict | None:
        message = self._about(Kind.RESPONSE, sent=_now(), duration=self._duration(), reason=reason)
        return await self._tell(message, encode_response(response), ANSWER_GRACE)

    async def error(self, reason: Reason) -> Verdict | None:
        return await self.whole(error_response(reason), reason)

    async def head(self, response: Response) -> Verdict | None:
        """Its body goes on in pieces."""
        message = self._about(Kind.RESPONSE, sent=_now(), more=True, duration=self._duration())
        return await self._tell(message, encode_response(response, more=True), ANSWER_GRACE)

    async def piece(self, sequence: int, payload: bytes, more: bool, reason: Reason | None) -> Verdict:
        """Raises Disconnected where it is lost, and with it the body."""
        if self._pieces is None:
            self._pieces = PiecePost(self._broker, self._request.app_id)
        message = Envelope(
            kind=Kind.BODY,
            correlation_id=self._request.correlation_id,
            app_id=self._worker,
            attempt=self._request.attempt,
            sequence=sequence,
            more=more,
            reason=reason,
            duration=None if more else self._duration(),
        )
        return await self._pieces.publish(message, payload)

    async def credit(self, credit: int) -> Verdict | None:
        """So much may come of the request's body, in all. It goes the way of the pieces: the tap need not hear it."""
        message = self._about(Kind.CREDIT, credit=credit)
        key = topology.body_key(self._request.app_id)
        return await post(self._broker, topology.RESPONSES, key, message, grace=NOTICE_GRACE)

    def _about(self, kind: Kind, **headers: Any) -> Envelope:
        return Envelope(
            kind=kind,
            correlation_id=self._request.correlation_id,
            app_id=self._worker,
            attempt=self._request.attempt,
            pool=self._pool,
            traceparent=self._request.traceparent,
            **headers,
        )

    async def _tell(self, message: Envelope, payload: bytes, grace: float) -> Verdict | None:
        key = self._request.reply_to or topology.response_key(self._request.app_id)
        return await post(self._broker, topology.RESPONSES, key, message, payload, grace=grace)

    def _duration(self) -> int:
        return int((time.perf_counter() - self._started) * 1e6)


def _now() -> int:
    return int(time.time() * 1000)
