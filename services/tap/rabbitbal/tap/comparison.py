"""Shadows: what a copy of a request was answered, beside what its client was answered."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from rabbitbal.wire.envelope import Leg

# A route names eight keys at most; whoever sends more copies of one request is not one of our edges.
_MOST_SHADOWS = 16


@dataclass(slots=True)
class _Group:
    """What is known of one client's request."""

    since: float
    primary: dict[str, Any] | None = None
    waiting: list[dict[str, Any]] = field(default_factory=list)
    """Lines of shadows that ended before the primary."""
    seen: set[str] = field(default_factory=set)
    """Ids of shadows that have ended."""


class Comparison:
    """Pairs the access lines of a group's primary and of its shadows, in whatever order they come.

    Not every primary has a shadow: one whose route hedges is a primary, too. So a group is not kept until it is
    complete, but for ``age`` seconds, and there are at most ``limit`` of them. A shadow whose primary was not seen by
    then is counted in ``forgotten``.
    """

    def __init__(self, limit: int, age: float) -> None:
        self._limit = limit
        self._age = age
        self._groups: OrderedDict[str, _Group] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._groups)

    def see(self, line: dict[str, Any], now: float) -> list[dict[str, Any]]:
        """The comparisons that an access line completes, as fields of lines `shadow.compared`. ``now``: seconds of any
        clock that does not go back."""
        self._forget(now)
        leg, name = line.get("leg"), line.get("group")
        if name is None or leg not in (Leg.PRIMARY, Leg.SHADOW) or line.get("unmatched"):
            return []
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(now)
            if len(self._groups) > self._limit:
                self._drop()
        if leg == Leg.SHADOW:
            return self._shadow(group, line)
        if group.primary is None:
            group.primary = line
        shadows, group.waiting = group.waiting, []
        return [_compared(group.primary, shadow) for shadow in shadows]

    def _shadow(self, group: _Group, line: dict[str, Any]) -> list[dict[str, Any]]:
        # A second ending of the same copy, of an attempt that was given up, is not a second shadow.
        if line["id"] in group.seen:
            return []
        if len(group.seen) == _MOST_SHADOWS:
            self.forgotten += 1
            return []
        group.seen.add(line["id"])
        if group.primary is not None:
            return [_compared(group.primary, line)]
        group.waiting.append(line)
        return []

    def _forget(self, now: float) -> None:
        """Groups that are too old. They lie in the order of their first line."""
        while self._groups and now - next(iter(self._groups.values())).since > self._age:
            self._drop()

    def _drop(self) -> None:
        _, group = self._groups.popitem(last=False)
        self.forgotten += len(group.waiting)


def _compared(primary: dict[str, Any], shadow: dict[str, Any]) -> dict[str, Any]:
    differs = _differences(primary, shadow)
    return {
        "group": primary["group"],
        "route": primary.get("route"),
        "target": primary.get("target"),
        "primary": _side(primary),
        "shadow": _side(shadow),
        "same": not differs,
        "differs": differs,
    }


def _side(line: dict[str, Any]) -> dict[str, Any]:
    """``reason`` is None where the application answered."""
    return {name: line.get(name) for name in ("status", "pool", "digest", "bytes", "app_ms", "reason")}


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """`status`, `ending` (not both were answered by an application, or not for the same reason), `body`, and `unknown`
    where a body's digest is missing: nobody can say then that the bodies are equal."""
    found = ["status"] if one.get("status") != other.get("status") else []
    if one.get("reason") != other.get("reason"):
        found.append("ending")
    if one.get("reason") is not None or other.get("reason") is not None:
        # There is no whole answer of the application on both sides.
        return found
    digests = {one.get("digest"), other.get("digest")}
    if one.get("bytes") != other.get("bytes") or (len(digests) == 2 and None not in digests):
        found.append("body")
    elif None in digests and one.get("bytes") != 0:
        found.append("unknown")
    return found
