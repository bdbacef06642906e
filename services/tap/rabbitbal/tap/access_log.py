"""One line per ended request, put together from the copies of the request and of its ending."""

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from rabbitbal.tap.observation import Observation
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.fields import Fields, content_length
from rabbitbal.wire.message import Request

# Legs whose answers are compared. Only theirs are worth the hashing.
_COMPARED = frozenset({Leg.PRIMARY, Leg.SHADOW})
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Fields that a line says, by what it calls them.
_SAID = {b"host": "host", b"x-forwarded-for": "client", b"user-agent": "agent", b"referer": "referer"}
# Of a header that should be a few characters, but is a stranger's.
_LONGEST = 100


@dataclass(slots=True)
class _Open:
    """A request whose ending has not been seen."""

    sent: int | None
    line: dict[str, Any]
    """What the line will say of the request: a few texts, and never its body."""
    head: Envelope | None = None
    """Of the streamed response that has begun."""
    claim: Envelope | None = None
    """Of the worker that said that it runs it."""


class AccessLog:
    """Pairs requests with endings. Remembers at most ``limit`` open requests; the oldest are forgotten and counted.

    A whole response is an ending. A streamed one is not: the edge tells when and how it ended. What must not be stored
    is taken out before it is remembered, so no line ever had it.
    """

    def __init__(self, limit: int, redactor: Redactor) -> None:
        self._limit = limit
        self._redactor = redactor
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._open)

    def restore(self, opened: Iterable[tuple[str, int | None, dict[str, Any], Envelope | None]]) -> None:
        """Requests whose endings a tap before this one has not seen: id, when it came, its line, and the head."""
        for name, sent, line, head in opened:
            self._open.setdefault(name, _Open(sent, line, head))

    def see(self, seen: Observation) -> dict[str, Any] | None:
        """The line that a message completes, or None."""
        envelope, response = seen.envelope, seen.response
        if seen.request is not None:
            # An ending brings the request along that came to no pool, as no copy of it came here.
            self._request(envelope, seen.request)
        if response is not None:
            if envelope.more:
                self._head(envelope)
                return None
            ending: dict[str, Any] = {"status": response.status, "bytes": len(response.body)}
            return self._line(envelope, _answered(envelope) | ending | self._digest(envelope, response.body))
        if envelope.kind is Kind.CLAIM:
            self._claim(envelope)
        if envelope.kind is Kind.ENDED:
            ending = {"worker": None, "status": envelope.status, "bytes": envelope.size or 0}
            return self._line(envelope, ending | self._digest(envelope, None))
        return None

    def _request(self, envelope: Envelope, request: Request) -> None:
        if envelope.correlation_id in self._open:
            return
        line = {
            "method": request.method,
            "target": _text(self._redactor.target(request.target)),
            **self._said(request.fields),
            "route": envelope.route,
            "edge": envelope.app_id,
            # Of a body that follows its head only what was declared is known, and a chunked one declares nothing.
            "request_bytes": content_length(request.fields) if envelope.more else len(request.body),
        }
        for name in ("upgrade", "leg", "group", "partition"):
            value: str | None = getattr(envelope, name)
            if value is not None:
                line[name] = str(value)[:_LONGEST]
        self._open[envelope.correlation_id] = _Open(envelope.sent, line)
        if len(self._open) > self._limit:
            self._open.popitem(last=False)
            self.forgotten += 1

    def _said(self, fields: Fields) -> dict[str, str | None]:
        """The first of each."""
        said: dict[str, str | None] = dict.fromkeys(_SAID.values())
        for name, value in self._redactor.fields([field for field in fields if field[0].lower() in _SAID]):
            what = _SAID[name.lower()]
            if said[what] is None:
                said[what] = _text(value)
        return said

    def _digest(self, envelope: Envelope, body: bytes | None) -> dict[str, Any]:
        """Of the body of a copy that is compared with another: made here where the body came here, else the edge's."""
        known = self._open.get(envelope.correlation_id)
        if known is None or known.line.get("leg") not in _COMPARED:
            return {}
        if body is not None:
            return {"digest": sha256(body).hexdigest()}
        told = envelope.digest or ""
        return {"digest": told} if _SHA256.fullmatch(told) else {}

    def _head(self, envelope: Envelope) -> None:
        """Remember who streams the response. A head makes no line: the edge tells when and how it ended."""
        known = self._open.get(envelope.correlation_id)
        # A worker that was taken for lost may still answer, after the one that has its request now.
        if known is not None and (known.head is None or known.head.attempt <= envelope.attempt):
            known.head = envelope

    def _claim(self, envelope: Envelope) -> None:
        """Remember who runs it: an ending that the edge makes does not say whose time was up, or who was lost."""
        known = self._open.get(envelope.correlation_id)
        if known is not None and (known.claim is None or known.claim.attempt <= envelope.attempt):
            known.claim = envelope

    def _line(self, envelope: Envelope, ending: dict[str, Any]) -> dict[str, Any]:
        known = self._open.pop(envelope.correlation_id, None)
        line = ending | {"id": envelope.correlation_id, "attempt": envelope.attempt, "reason": envelope.reason}
        if envelope.group is not None:
            line["group"] = envelope.group[:_LONGEST]
        if known is None:
            # A second answer, an answer behind the ending, or a request from before this tap's time.
            return line | {"unmatched": True}
        line["pool"] = envelope.pool
        if envelope.kind is Kind.ENDED and known.head is not None and known.head.attempt == envelope.attempt:
            line |= _answered(known.head) | {"pool": known.head.pool}
        elif envelope.kind is Kind.ENDED and known.claim is not None and known.claim.attempt == envelope.attempt:
            line["worker"] = known.claim.app_id
        # By the clocks of the edge and of whoever ended it.
        total = envelope.sent - known.sent if envelope.sent and known.sent else None
        whole = known.line | line | {"total_ms": total}
        if "app_ms" in line:
            # The application's time is until its answer's head, so what was before is counted until that, too.
            answered = envelope if envelope.kind is Kind.RESPONSE else known.head
            if answered is not None and answered.sent and known.sent:
                whole["queue_ms"] = round(max(0.0, answered.sent - known.sent - line["app_ms"]), 2)
        return whole


def _answered(envelope: Envelope) -> dict[str, Any]:
    """What a response says of the worker. Its time is until the response was whole, or until its head."""
    if envelope.duration is None:
        return {"worker": envelope.app_id}
    return {"worker": envelope.app_id, "app_ms": round(envelope.duration / 1000, 2)}


def _text(value: bytes) -> str:
    return value[:1000].decode("utf-8", "replace")
