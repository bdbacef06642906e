"""What a shadow answered beside what its primary did."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import decode_response

# Copies of one request: more are not made.
MOST_SHADOWS = 8


@dataclass(slots=True)
class _Side:
    """One copy: known when it is published, complete when it has ended."""

    leg: Leg
    ended: bool = False
    status: int | None = None
    reason: str | None = None
    digest: str | None = None
    size: int | None = None
    pool: str | None = None
    app_ms: float | None = None

    def shown(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "reason": self.reason,
            "pool": self.pool,
            "bytes": self.size,
            "digest": self.digest,
            "app_ms": self.app_ms,
        }


@dataclass(slots=True)
class _Group:
    route: str | None
    sides: dict[str, _Side] = field(default_factory=dict)
    """By the copy's id."""


class Comparison:
    """Remembers at most ``limit`` groups; the oldest are forgotten and counted.

    A copy's request is seen before its answer: both take the way through one queue, and it was published first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._groups: OrderedDict[str, _Group] = OrderedDict()
        self._of: dict[str, str] = {}
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._groups)

    def see(self, envelope: Envelope, payload: bytes) -> list[dict[str, Any]]:
        """Lines for the shadows that can be compared now. Raises WireError for a payload that is not HTTP."""
        if envelope.kind is Kind.REQUEST or (envelope.kind is Kind.ENDED and payload):
            self._begin(envelope)
        if envelope.kind is Kind.RESPONSE and not envelope.more:
            response = decode_response(payload)
            side = _Side(
                Leg.PRIMARY,
                status=response.status,
                reason=envelope.reason,
                digest=hashlib.sha256(response.body).hexdigest(),
                size=len(response.body),
            )
            return self._end(envelope, side)
        if envelope.kind is Kind.RESPONSE:
            known = self._side(envelope.correlation_id)
            if known is not None:
                known.pool, known.app_ms = envelope.pool, _ms(envelope)
            return []
        if envelope.kind is Kind.ENDED:
            side = _Side(
                Leg.PRIMARY, status=envelope.status, reason=envelope.reason, digest=envelope.digest, size=envelope.size
            )
            return self._end(envelope, side)
        return []

    def _begin(self, envelope: Envelope) -> None:
        if envelope.leg not in (Leg.PRIMARY, Leg.SHADOW) or envelope.group is None:
            return
        group = self._groups.get(envelope.group)
        if group is None:
            group = self._groups[envelope.group] = _Group(envelope.route)
            if len(self._groups) > self._limit:
                _, oldest = self._groups.popitem(last=False)
                for copy in oldest.sides:
                    self._of.pop(copy, None)
                # A primary alone is one that was hedged, or was to be.
                self.forgotten += len(oldest.sides) > 1
        if envelope.correlation_id not in group.sides and len(group.sides) <= MOST_SHADOWS:
            group.sides[envelope.correlation_id] = _Side(envelope.leg)
            self._of[envelope.correlation_id] = envelope.group

    def _side(self, copy: str) -> _Side | None:
        group = self._groups.get(self._of.get(copy, ""))
        return group.sides.get(copy) if group is not None else None

    def _end(self, envelope: Envelope, told: _Side) -> list[dict[str, Any]]:
        known = self._side(envelope.correlation_id)
        if known is None or known.ended:
            return []
        known.ended, known.status, known.reason = True, told.status, told.reason
        known.digest, known.size = told.digest, told.size
        if envelope.kind is Kind.RESPONSE:
            known.pool, known.app_ms = envelope.pool, _ms(envelope)
        name = self._of[envelope.correlation_id]
        return self._compared(name, self._groups[name])

    def _compared(self, name: str, group: _Group) -> list[dict[str, Any]]:
        primary = next((side for side in group.sides.values() if side.leg is Leg.PRIMARY and side.ended), None)
        if primary is None:
            return []
        lines = []
        for copy, side in list(group.sides.items()):
            if side.leg is Leg.SHADOW and side.ended:
                lines.append(_line(name, group, primary, side))
                del group.sides[copy], self._of[copy]
        return lines


def _line(name: str, group: _Group, primary: _Side, shadow: _Side) -> dict[str, Any]:
    differs = [what for what, one, other in _compare(primary, shadow) if one != other]
    return {
        "group": name,
        "route": group.route,
        "same": not differs,
        "differs": differs,
        "primary": primary.shown(),
        "shadow": shadow.shown(),
    }


def _compare(primary: _Side, shadow: _Side) -> list[tuple[str, object, object]]:
    if primary.reason != shadow.reason:
        return [("reason", primary.reason, shadow.reason)]
    return [("status", primary.status, shadow.status), ("body", primary.digest, shadow.digest)]


def _ms(envelope: Envelope) -> float | None:
    return None if envelope.duration is None else round(envelope.duration / 1000, 2)
