"""One line per ended request, put together from the copies of the request and of its ending."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.fields import first
from rabbitbal.wire.message import decode_request, decode_response


@dataclass(slots=True)
class _Open:
    """A request whose ending has not been seen."""

    sent: int | None
    line: dict[str, Any]
    """What the line will say of the request: a few texts, and never its body."""


class AccessLog:
    """Pairs requests with endings. Remembers at most ``limit`` open requests; the oldest are forgotten and counted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._open)

    def see(self, envelope: Envelope, payload: bytes) -> dict[str, Any] | None:
        """The line that a message completes, or None. Raises WireError for a payload that is not HTTP."""
        if envelope.kind is Kind.REQUEST:
            self._request(envelope, payload)
            return None
        if envelope.kind is Kind.RESPONSE:
            response = decode_response(payload)
            line: dict[str, Any] = {"status": response.status, "bytes": len(response.body), "worker": envelope.app_id}
            if envelope.duration is not None:
                line["app_ms"] = round(envelope.duration / 1000, 2)
        elif envelope.kind is Kind.ENDED:
            line = {"status": envelope.status, "bytes": 0, "worker": None}
            if payload:
                # It came to no pool, so no copy of it came here.
                self._request(envelope, payload)
        else:
            return None
        known = self._open.pop(envelope.correlation_id, None)
        line |= {"id": envelope.correlation_id, "attempt": envelope.attempt, "reason": envelope.reason}
        if known is None:
            # A second answer, an answer behind the ending, or a request from before this tap's time.
            return line | {"unmatched": True}
        # By the clocks of the edge and of whoever ended it.
        total = envelope.sent - known.sent if envelope.sent and known.sent else None
        return known.line | line | {"pool": envelope.pool, "total_ms": total}

    def _request(self, envelope: Envelope, payload: bytes) -> None:
        if envelope.correlation_id in self._open:
            return
        request = decode_request(payload)
        line = {
            "method": request.method,
            "target": _text(request.target),
            "host": _text(first(request.fields, b"host")),
            "client": _text(first(request.fields, b"x-forwarded-for")),
            "agent": _text(first(request.fields, b"user-agent")),
            "referer": _text(first(request.fields, b"referer")),
            "route": envelope.route,
            "edge": envelope.app_id,
            "request_bytes": len(request.body),
        }
        self._open[envelope.correlation_id] = _Open(envelope.sent, line)
        if len(self._open) > self._limit:
            self._open.popitem(last=False)
            self.forgotten += 1


def _text(value: bytes | None) -> str | None:
    return None if value is None else value[:1000].decode("utf-8", "replace")
