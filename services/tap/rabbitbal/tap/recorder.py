"""Records requests with their answers for whoever asks: `GET /api/record`, newline-delimited JSON.

Nothing is remembered while nobody records. What is remembered then is bounded; a reader who is slow loses lines, and
is told how many. Everything is redacted before it is given out.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, HTTPException, Query
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from rabbitbal.tap.observation import Observation
from rabbitbal.tap.recording import Recording, Wanted
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Fields, content_length, first
from rabbitbal.wire.flow import INLINE
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.recording import Exchange, Partial, encode_exchange

log = structlog.get_logger()

MOST_RECORDINGS = 4
# Requests whose ending is not here yet, and what they take, of all recordings together.
OPEN = 20_000
OPEN_BYTES = 16 * 1024 * 1024
# What a message takes besides its bytes: its fields are objects.
_OVERHEAD = 2048


@dataclass(slots=True)
class _Open:
    """A request whose ending has not been seen."""

    envelope: Envelope
    request: Request
    part: Partial | None
    size: int
    head: Response | None = None
    """Of a streamed response that has begun."""


class Busy(Exception):
    """As many record as may."""


class Recorder:
    """A part. Pairs requests with responses while somebody records, and remembers nothing else.

    The access line, which the journal has made, says how each ended.
    """

    def __init__(self, redactor: Redactor | None, limit: int = OPEN, limit_bytes: int = OPEN_BYTES) -> None:
        """Without a redactor everything is given out as it is."""
        self._redactor = redactor
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._recordings: list[Recording] = []
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._bytes = 0
        self.forgotten = 0
        """Requests that found no room until their ending came."""

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, wanted: Wanted, limit: int | None = None, seconds: float | None = None) -> Recording:
        """Raises Busy. Whoever begins one must `end` it."""
        if len(self._recordings) == MOST_RECORDINGS:
            raise Busy
        recording = Recording(self, wanted, limit, seconds)
        self._recordings.append(recording)
        return recording

    def end(self, recording: Recording) -> None:
        self._recordings.remove(recording)
        if not self._recordings:
            self._open.clear()
            self._bytes = 0

    def close(self) -> None:
        """Tell all readers that this is the end."""
        for recording in self._recordings:
            recording.leave()

    def see(self, seen: Observation) -> None:
        if not self._recordings:
            return
        if seen.request is not None:
            self._request(seen.envelope, seen.request, len(seen.payload))
        if seen.response is not None and seen.envelope.more:
            self._head(seen.envelope.correlation_id, seen.response, len(seen.payload))
        if seen.line is not None:
            self._ended(seen, seen.line)

    @property
    def rest(self) -> int:
        """Redacting takes more time than all else that the tap does with a request. With such rests, all recordings
        together have half of the tap's time at most."""
        return 2 * len(self._recordings) - 1

    def line(self, exchange: Exchange) -> bytes | None:
        """As it is given out, or None where what is left of it makes no message."""
        try:
            return encode_exchange(self._redacted(exchange)).encode() + b"\n"
        except WireError as error:
            log.info("recorder.no_message", id=exchange.id, error=str(error))
            return None

    def _request(self, envelope: Envelope, request: Request, size: int) -> None:
        name = envelope.correlation_id
        if name in self._open or not any(each.wanted.takes(name, envelope.route, request) for each in self._recordings):
            return
        part = None
        if envelope.more:
            part = Partial(content_length(request.fields))
        elif envelope.kind is Kind.ENDED:
            # It came to no pool, and this is its head alone.
            part = Partial()
        elif len(request.body) > INLINE:
            part = Partial(len(request.body))
        if part is not None:
            request = replace(request, body=b"")
        if envelope.upgrade is not None:
            request = replace(request, upgrade=envelope.upgrade)
        self._open[name] = _Open(envelope, request, part, size + _OVERHEAD)
        self._bytes += size + _OVERHEAD
        self._make_room()

    def _head(self, name: str, response: Response, size: int) -> None:
        known = self._open.get(name)
        if known is not None and known.head is None:
            # What there is of the body is not kept: of half a document a rule might miss what is to be redacted.
            known.head = Response(response.status, response.fields)
            known.size += size
            self._bytes += size
            self._make_room()

    def _make_room(self) -> None:
        while len(self._open) > self._limit or self._bytes > self._limit_bytes:
            _, oldest = self._open.popitem(last=False)
            self._bytes -= oldest.size
            self.forgotten += 1

    def _ended(self, seen: Observation, line: dict[str, Any]) -> None:
        known = self._open.pop(seen.envelope.correlation_id, None)
        if known is None:
            return
        self._bytes -= known.size
        exchange = _exchange(known, seen, line)
        size = known.size + (len(seen.payload) if seen.response is not None else 0)
        for each in self._recordings:
            wanted = each.wanted
            if (wanted.pool is None or wanted.pool == exchange.pool) and wanted.takes(
                exchange.id, exchange.route, exchange.request
            ):
                each.offer(exchange, size)

    def _redacted(self, exchange: Exchange) -> Exchange:
        redactor = self._redactor
        if redactor is None:
            return exchange
        request, response = exchange.request, exchange.response
        request = replace(
            request,
            target=redactor.target(request.target),
            fields=redactor.fields(request.fields),
            body=_body(redactor, request.fields, request.body),
        )
        if response is not None:
            body = _body(redactor, response.fields, response.body)
            response = replace(response, fields=redactor.fields(response.fields), body=body)
        return replace(exchange, request=request, response=response)


def _body(redactor: Redactor, fields: Fields, body: bytes) -> bytes:
    return redactor.body(first(fields, b"content-type"), body)


def _exchange(known: _Open, seen: Observation, line: dict[str, Any]) -> Exchange:
    envelope = known.envelope
    response, part = known.head, None
    if seen.response is not None and seen.envelope.reason is None:
        response = seen.response
        if len(response.body) > INLINE:
            part = Partial(len(response.body), line.get("digest"))
            response = replace(response, body=b"")
    elif response is not None:
        part = Partial(line.get("bytes"), line.get("digest"))
    total = line.get("total_ms")
    return Exchange(
        id=envelope.correlation_id,
        when=envelope.sent or int(seen.at * 1000),
        request=known.request,
        response=response,
        status=line.get("status"),
        reason=line.get("reason"),
        route=envelope.route,
        pool=line.get("pool"),
        worker=line.get("worker"),
        attempt=line.get("attempt", 1),
        leg=line.get("leg"),
        group=line.get("group"),
        app_ms=line.get("app_ms"),
        queue_ms=line.get("queue_ms"),
        total_ms=max(0, total) if total is not None else None,
        request_body=known.part,
        response_body=part,
    )


class _Stream(StreamingResponse):
    """Ends the recording whatever becomes of the response."""

    def __init__(self, recorder: Recorder, recording: Recording) -> None:
        super().__init__(recording.lines(), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})
        self._recorder = recorder
        self._recording = recording

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._recorder.end(self._recording)
            log.info("recorder.ended", recorded=self._recording.recorded, skipped=self._recording.skipped)


def router(recorder: Recorder) -> APIRouter:
    routes = APIRouter(tags=["record"])

    @routes.get("/api/record", response_class=StreamingResponse)
    async def record(
        route: Annotated[str | None, Query(max_length=200)] = None,
        pool: Annotated[str | None, Query(max_length=64)] = None,
        method: Annotated[str | None, Query(max_length=40)] = None,
        path: Annotated[str | None, Query(max_length=2000, description="what the target begins with")] = None,
        sample: Annotated[float, Query(gt=0, le=1)] = 1.0,
        limit: Annotated[int | None, Query(ge=1, le=1_000_000_000)] = None,
        seconds: Annotated[float | None, Query(gt=0, le=604_800)] = None,
    ) -> StreamingResponse:
        """Requests with their answers, a line of JSON for each that ends; a line of counts each second, and last."""
        try:
            recording = recorder.begin(Wanted(route, pool, method, path, sample), limit, seconds)
        except Busy:
            raise HTTPException(503, f"{MOST_RECORDINGS} record already", {"Retry-After": "10"}) from None
        return _Stream(recorder, recording)

    return routes
