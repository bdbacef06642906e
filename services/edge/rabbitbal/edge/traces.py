"""The edge's part in distributed traces (https://www.w3.org/TR/trace-context/); pure, but for its random ids.

An application gets a `traceparent` whose parent is the span of its own run, and the envelope repeats it. The tap, which
makes the spans, derives the others from it (docs/traces.md).
"""

import re
from dataclasses import dataclass, replace
from random import random
from secrets import token_hex

from rabbitbal.edge.ticket import Order
from rabbitbal.wire.fields import Fields, values

# §3.2.2: lower-case hexadecimal digits. A later version may add more, behind another "-".
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE = b"0" * 32
NO_SPAN = "0" * 16

# Sampled; and, of level 2, that the trace id is random. Of the others §3.2.2.5.2 says: "MUST set those to zero."
_FLAGS = 0x03
_SAMPLED = "01"
_NOT_SAMPLED = "00"


@dataclass(frozen=True, slots=True)
class Trace:
    """``traceparent`` is what the application gets, ``caller`` the span of who sent the request, or `NO_SPAN`."""

    traceparent: str
    caller: str


def taken_up(fields: Fields, sample: float) -> tuple[Fields, Trace]:
    """The fields as the application will see them, and the trace. One that did not come with the request is sampled by
    chance (``sample``: 0 to 1)."""
    came = _came(fields)
    if came is None:
        # §3.3.1.1: "If the vendor failed to parse traceparent, it MUST NOT attempt to parse tracestate."
        dropped = {b"traceparent", b"tracestate"}
        flags = _SAMPLED if random() < sample else _NOT_SAMPLED  # noqa: S311 - a sample, not a secret
        trace = Trace(f"00-{token_hex(16)}-{_span()}-{flags}", NO_SPAN)
    else:
        dropped = {b"traceparent"}
        trace_id, caller, flags = came
        trace = Trace(f"00-{trace_id}-{_span()}-{flags}", caller)
    kept = [field for field in fields if field[0].lower() not in dropped]
    kept.append((b"traceparent", trace.traceparent.encode()))
    return kept, trace


def copied(order: Order) -> Order:
    """The same request for another run: its application is given a span of its own."""
    if order.caller_span is None or order.traceparent is None:
        return order
    version, trace_id, _, flags = order.traceparent.split("-")
    traceparent = f"{version}-{trace_id}-{_span()}-{flags}"
    # The ids are random, so the first place that reads so is the field that was set here.
    payload = order.payload.replace(order.traceparent.encode(), traceparent.encode(), 1)
    return replace(order, traceparent=traceparent, payload=payload)


def _came(fields: Fields) -> tuple[str, str, str] | None:
    """Trace id, span id and flags of a valid `traceparent`. Of two nobody knows which one counts."""
    found = list(values(fields, b"traceparent"))
    parts = _TRACEPARENT.fullmatch(found[0].strip()) if len(found) == 1 else None
    if parts is None:
        return None
    version, trace_id, span_id, flags, rest = parts.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    if trace_id == _NO_TRACE or span_id.decode() == NO_SPAN:
        return None
    return trace_id.decode(), span_id.decode(), f"{int(flags, 16) & _FLAGS:02x}"


def _span() -> str:
    """16 random digits, and not all of them 0 (§3.2.2.4)."""
    return token_hex(8).replace(NO_SPAN, "0" * 15 + "1")
