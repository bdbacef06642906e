"""What edges, workers and the operator say that belongs to no request: a JSON object for each, one line of the log.

Whoever may publish to the exchange of events can write one, so the log is protected: a line is bounded, and nobody can
set the fields that the tap itself answers for.
"""

import json
import re
from typing import Any

from rabbitbal.wire.errors import WireError

MOST_BYTES = 65_536
_MOST_FIELDS = 32
_MOST_DEPTH = 4
_MOST_TEXT = 1000
_EVENT = re.compile(r"[a-z][a-z0-9_-]{0,31}(\.[a-z0-9_-]{1,31}){1,3}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Lines that only the tap writes, and fields of each line that it or its log sets.
_OWN_EVENTS = ("access.", "broker.", "shadow.", "tap.")
_OWN_FIELDS = frozenset({"timestamp", "level", "logger", "service", "instance", "sender", "user"})
# They mean something to structlog's functions.
_RESERVED = frozenset({"self", "method_name", "event", "exc_info", "stack_info"})


def notice(payload: bytes) -> tuple[str, dict[str, Any]]:
    """The event's name, like `pool.moved`, and the other fields. Raises WireError for what does not belong in a log."""
    if len(payload) > MOST_BYTES:
        raise WireError(f"a notice has {len(payload)} bytes; {MOST_BYTES} is the most")
    try:
        found = json.loads(payload, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise WireError("a notice is not JSON") from None
    if not isinstance(found, dict):
        raise WireError("a notice is not a JSON object")
    event = found.pop("event", None)
    if not isinstance(event, str) or not _EVENT.fullmatch(event):
        raise WireError("a notice must name an event, like pool.moved")
    if event.startswith(_OWN_EVENTS):
        raise WireError(f"the event {event} is the tap's own")
    if len(found) > _MOST_FIELDS:
        raise WireError(f"a notice has {len(found)} fields; {_MOST_FIELDS} is the most")
    for name in found:
        if not _FIELD.fullmatch(name) or name in _OWN_FIELDS | _RESERVED:
            raise WireError(f"a notice cannot have a field {name[:40]!r}")
    return event, {name: _bounded(value, 1) for name, value in found.items()}


def _refused(constant: str) -> None:
    # Python reads NaN and Infinity, and would write them into the log: no other reader could.
    raise ValueError(constant)


def _bounded(value: Any, depth: int) -> Any:
    """The value with texts cut. Its size is bounded by the payload's."""
    if isinstance(value, str):
        return value[:_MOST_TEXT]
    if isinstance(value, list | dict):
        if depth > _MOST_DEPTH:
            raise WireError(f"a notice is nested more than {_MOST_DEPTH} deep")
        if isinstance(value, list):
            return [_bounded(item, depth + 1) for item in value]
        return {name[:_MOST_TEXT]: _bounded(item, depth + 1) for name, item in value.items()}
    return value
