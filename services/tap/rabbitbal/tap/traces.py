"""Spans of the requests whose edges take part in their traces: `request`, and below it `queue` and `app`; pure.

Their ids are derived from the `traceparent` that the application was given, whose span is that of its run; so messages
that are read twice make the same spans (docs/traces.md).
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rabbitbal.tap.observation import Observation
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.fields import first
from rabbitbal.wire.message import Request
from rabbitbal.wire.reasons import Reason

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SPAN = re.compile(r"[0-9a-f]{16}")
_SAMPLED = 0x01
_LONGEST = 200
_MICROSECOND = 1_000
_MILLISECOND = 1_000_000
# Nanoseconds, and the milliseconds of a time that is taken for one: until the year 2248.
_LAST = (1 << 63) - 1
_LATEST = 1 << 43

# What the conventions name; they want `_OTHER` for the rest, so that there are few values.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
# The other copy's answer counted. That is no failure of anybody.
_NO_ERRORS = frozenset({Reason.SUPERSEDED, Reason.CLIENT_GONE})


class Role(Enum):
    SERVER = "server"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Span:
    """Ids are those of W3C Trace Context; times are in nanoseconds since the Unix epoch."""

    name: str
    role: Role
    trace: int
    id: int
    parent: int | None
    start: int
    end: int
    attributes: dict[str, Any]
    error: str | None = None
    """What went wrong, where something did."""


@dataclass(slots=True)
class _Open:
    """A request whose ending was not seen."""

    trace: int
    app: int
    """The id of the span that the application's own hang below."""
    caller: int | None
    start: int
    attempt: int
    began: int | None = None
    """When the application's run began, as far as its worker has told."""
    head: Envelope | None = None
    """Of the streamed response that has begun."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """Of the request."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Attributes that all its spans have."""


class Traces:
    """One of the tap's parts. Remembers at most ``limit`` open requests; the oldest are forgotten and counted."""

    def __init__(self, emit: Callable[[Span], None], limit: int, redactor: Redactor) -> None:
        self._emit = emit
        self._limit = limit
        self._redactor = redactor
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._open)

    def see(self, seen: Observation) -> None:
        envelope = seen.envelope
        if seen.request is not None:
            self._begin(seen)
        known = self._open.get(envelope.correlation_id)
        if known is None:
            return
        if envelope.kind is Kind.REQUEST and envelope.attempt > known.attempt:
            # The run before was lost, or never was.
            known.attempt, known.began, known.head = envelope.attempt, None, None
        elif envelope.kind is Kind.CLAIM and envelope.attempt >= known.attempt:
            known.began = _began(envelope) or known.began
        elif envelope.kind is Kind.RESPONSE and envelope.more:
            if envelope.attempt >= known.attempt:
                known.head, known.began = envelope, _began(envelope) or known.began
        elif seen.response is not None or envelope.kind is Kind.ENDED:
            del self._open[envelope.correlation_id]
            self._end(known, seen)

    def _begin(self, seen: Observation) -> None:
        envelope, request = seen.envelope, seen.request
        context = None if envelope.correlation_id in self._open else _context(envelope)
        if context is None or request is None:
            return
        trace, app, caller = context
        start = (envelope.sent or 0) * _MILLISECOND
        if envelope.kind is Kind.ENDED:
            # It came to no pool, so all that is known of its beginning is how long ago that was.
            start -= (envelope.duration or 0) * _MICROSECOND
        notes = {"rabbitbal.edge": envelope.app_id[:_LONGEST], "rabbitbal.id": envelope.correlation_id[:_LONGEST]}
        for name in ("route", "leg", "group"):
            value: str | None = getattr(envelope, name)
            if value is not None:
                notes[f"rabbitbal.{name}"] = str(value)[:_LONGEST]
        path = _text(self._redactor.target(request.target).partition(b"?")[0])
        attributes = _attributes(request) | {"url.path": path}
        self._open[envelope.correlation_id] = _Open(
            trace, app, caller, start, envelope.attempt, attributes=attributes, notes=notes
        )
        if len(self._open) > self._limit:
            self._open.popitem(last=False)
            self.forgotten += 1

    def _end(self, known: _Open, seen: Observation) -> None:
        envelope = seen.envelope
        times = _times(known, envelope)
        status = seen.response.status if seen.response is not None else envelope.status
        reason, run = envelope.reason, known.head if envelope.kind is Kind.ENDED else envelope
        notes = known.notes | {"rabbitbal.attempt": envelope.attempt}
        if reason is not None:
            notes["rabbitbal.reason"] = reason.value
        if abs(times.shift) >= _MILLISECOND:
            notes["rabbitbal.clock_shift_ms"] = round(times.shift / _MILLISECOND, 3)
        if run is not None:
            notes["rabbitbal.worker"] = run.app_id[:_LONGEST]
            if run.pool is not None:
                notes["rabbitbal.pool"] = run.pool[:_LONGEST]
        # "span status SHOULD be set to Error" for 5xx of a server. The client's fault is none of the server's.
        error = None
        if reason not in _NO_ERRORS and (status or 0) >= 500:
            error = reason.value if reason is not None else str(status)
        whole = known.attributes | notes | ({} if status is None else {"http.response.status_code": status})
        if error is not None:
            whole["error.type"] = error
        request = _derived(known, "request")

        def span(
            name: str, role: Role, own: int, parent: int | None, start: int, end: int, said: dict[str, Any]
        ) -> None:
            failed = error if name != "queue" or times.app is None else None
            first_, last = max(start, 0), min(max(start, end, 0), _LAST)
            self._emit(Span(name, role, known.trace, own, parent, min(first_, last), last, said, failed))

        span("request", Role.SERVER, request, known.caller, known.start, times.end, whole)
        if envelope.kind is Kind.ENDED and seen.request is not None:
            # No pool had it.
            return
        queue_end = times.end if times.app is None else times.app[0]
        span("queue", Role.INTERNAL, _derived(known, "queue"), request, known.start, queue_end, notes)
        if times.app is not None:
            span("app", Role.INTERNAL, known.app, request, *times.app, notes)


def _context(envelope: Envelope) -> tuple[int, int, int | None] | None:
    """Trace, span of the application's run and span of the caller, of a request that makes spans."""
    found = _TRACEPARENT.fullmatch(envelope.traceparent or "")
    if found is None or not _SPAN.fullmatch(envelope.caller_span or "") or not 0 < (envelope.sent or 0) < _LATEST:
        return None
    trace, app, caller = int(found[1], 16), int(found[2], 16), int(envelope.caller_span or "", 16)
    sampled = int(found[3], 16) & _SAMPLED
    return (trace, app, caller or None) if trace and app and sampled else None


def _attributes(request: Request) -> dict[str, Any]:
    """By https://opentelemetry.io/docs/specs/semconv/http/http-spans/, less the path."""
    said: dict[str, Any] = {"http.request.method": request.method}
    if request.method not in _METHODS:
        said = {"http.request.method": "_OTHER", "http.request.method_original": request.method[:_LONGEST]}
    # The host may be an IPv6 address, which has colons of its own.
    address, _, port = (host := _text(first(request.fields, b"host"))).rpartition(":")
    if port.isdecimal():
        said |= {"server.address": address, "server.port": int(port[:5])}
    else:
        said["server.address"] = host
    said["url.scheme"] = "https" if first(request.fields, b"x-forwarded-proto") in (b"https", b"wss") else "http"
    client = _text(first(request.fields, b"x-forwarded-for")).partition(",")[0].strip()
    return said | {"client.address": client} if client else said


@dataclass(frozen=True, slots=True)
class _Times:
    end: int
    """Of the request."""
    app: tuple[int, int] | None
    """Start and end of the application's run, where there was one."""
    shift: int
    """Nanoseconds by which the worker's times were moved."""


def _times(known: _Open, ending: Envelope) -> _Times:
    """All times by the edge's clock, as far as that can be known.

    Start, and the end that the edge tells, are by its own clock. The worker's may be another machine's: when its run
    would begin before the request, it is moved to the request's start; and when the edge knows the end, no run ends
    behind it. A length of time is never changed but for that.
    """
    sent = (ending.sent or 0) * _MILLISECOND
    if ending.kind is Kind.ENDED:
        end = known.start + (ending.duration or 0) * _MICROSECOND
        if known.began is None:
            return _Times(end, None, 0)
        began = min(max(known.began, known.start), end)
        return _Times(end, (began, end), began - known.began)
    answered = _began(ending)
    if answered is None:
        return _Times(max(sent, known.start), None, 0)
    shift = max(known.start - answered, 0)
    return _Times(sent + shift, (answered + shift, sent + shift), shift)


def _began(envelope: Envelope) -> int | None:
    """When the run that a worker's message tells of began, by the worker's clock."""
    if envelope.sent is None or envelope.duration is None:
        return None
    return envelope.sent * _MILLISECOND - envelope.duration * _MICROSECOND


def _derived(known: _Open, name: str) -> int:
    """The id of another span of the same request; never 0, which is none."""
    digest = hashlib.blake2b(b"%x-%x-%s" % (known.trace, known.app, name.encode()), digest_size=8).digest()
    return int.from_bytes(digest) or 1


def _text(value: bytes | None) -> str:
    return "" if value is None else value[:_LONGEST].decode("utf-8", "replace")
