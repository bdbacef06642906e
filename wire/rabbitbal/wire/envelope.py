"""The envelope of a message: what its AMQP properties and headers say.

docs/wire-format.md is the specification. Whatever comes off the broker is checked here, once, before anything is done
with it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.reasons import Reason

VERSION = 1


class Kind(StrEnum):
    """The AMQP property ``type``."""

    REQUEST = "request"
    RESPONSE = "response"
    # worker -> edge: this request has been running for a while, and I run it.
    CLAIM = "claim"
    # worker -> edge: the broker gave me this request for the second time; decide what becomes of it.
    REDELIVERED = "redelivered"
    # edge -> worker: nobody waits for this request any longer.
    CANCEL = "cancel"
    # both ways: the next piece of a body.
    BODY = "body"
    # both ways: how much of a body may be sent in all.
    CREDIT = "credit"
    # both ways: are you there? No answer is expected: that the broker returns the message is one.
    PROBE = "probe"
    # edge -> events: a request ended and no worker's response says so.
    ENDED = "ended"
    # edge, worker, operator -> events: something for the log that belongs to no request. The payload is a JSON object.
    NOTICE = "notice"
    # edge, worker -> events: what it has done since it started (`rabbitbal.wire.figures`).
    FIGURES = "figures"
    # tap -> events, and so to edges: what is thought of a client (`rabbitbal.wire.verdicts`).
    VERDICT = "verdict"
    # operator -> worker: take no more requests.
    DRAIN = "drain"
    # operator -> worker: take requests again.
    RESUME = "resume"


class Leg(StrEnum):
    """What one copy of a client's request is to the others of its group."""

    # It decides the client's answer, alone or unless the other is faster.
    PRIMARY = "primary"
    # One of several, and the first good answer counts.
    FIRST = "first"
    # One of several whose answers the client gets together.
    ALL = "all"
    # The second try of a request that is late.
    HEDGE = "hedge"
    # Its answer is for the tap only.
    SHADOW = "shadow"


# Their workers say at once that they run them, so that those that lose can be cancelled one by one.
CLAIMED_AT_ONCE = frozenset({Leg.FIRST, Leg.HEDGE})


@dataclass(frozen=True, slots=True)
class Envelope:
    """Properties and headers of one message. Fields that a kind does not use are None and are not sent."""

    kind: Kind
    correlation_id: str
    """Names the request. 128 random bits: who was not given the request cannot answer it."""
    app_id: str
    """Id of the edge or worker that sent the message."""
    reply_to: str | None = None
    """Routing key, on the responses exchange, of the edge that waits."""
    expiration: int | None = None
    """Milliseconds that the message may wait in a queue."""
    attempt: int = 1
    """1 for the first publication of a request; replies repeat the attempt that they belong to."""
    deadline: int | None = None
    """Milliseconds since the Unix epoch; no worker starts the request after it, and a running one is cancelled."""
    repeatable: bool | None = None
    """Whether the request may run a second time."""
    route: str | None = None
    pool: str | None = None
    reason: Reason | None = None
    more: bool | None = None
    """The body goes on in `body` messages. Not set: it is whole with this message."""
    sequence: int | None = None
    """On a `body`: 1, 2, 3 … in each direction of each attempt."""
    credit: int | None = None
    """What the sender takes of `body` messages in all, counted from the attempt's start (`rabbitbal.wire.flow`)."""
    upgrade: str | None = None
    """On a request: the protocol that the client wants to go on with; `websocket` is the one there is."""
    size: int | None = None
    """On an `ended` event: bytes of body that the client was sent."""
    status: int | None = None
    """On an `ended` event: the status that the client got."""
    duration: int | None = None
    """Microseconds: of the application (on a response) or of the whole request (on `ended`)."""
    traceparent: str | None = None
    caller_span: str | None = None
    """With `traceparent`, from an edge that takes part in the trace: the span of who sent it the request, or zeros."""
    leg: Leg | None = None
    """On a request that is one of several copies, and on an `ended` event of one: which."""
    group: str | None = None
    """With `leg`: names the client's request that the copies belong to. It is no copy's `correlation_id`."""
    partition: str | None = None
    """On a request that must go where others with the same value go: the partition of a sticky pool, in decimal."""
    digest: str | None = None
    """On an `ended` event: SHA-256 of the streamed body as the client was sent it, in hexadecimal."""
    persistent: bool = False
    """The message survives a restart of the broker in a durable queue. It is a property, and is not read back."""
    user_id: str | None = None
    """The broker's user that sends the message; the broker refuses a message with another's name."""
    sent: int | None = None
    """Milliseconds since the Unix epoch, by the sender's clock, at which the message was made."""
    error: str | None = None
    """On a dead letter: what is wrong with the message, for people."""

    def headers(self) -> dict[str, Any]:
        """The AMQP headers: what no standard property can carry."""
        sent: dict[str, Any] = {"version": VERSION, "attempt": self.attempt}
        for name in _TYPES:
            value = getattr(self, name)
            if value is not None:
                sent[name] = value
        if self.leg is not None:
            sent["leg"] = self.leg.value
        if self.reason is not None:
            sent["reason"] = self.reason.value
        return sent


# A number travels as a signed 64-bit integer at most.
_MOST = 1 << 63

WEBSOCKET = "websocket"

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REPLY_TO = re.compile(r"response\.[A-Za-z0-9_-]{1,64}")

_NEEDED: dict[Kind, tuple[str, ...]] = {
    Kind.REQUEST: ("deadline", "repeatable", "route"),
    Kind.BODY: ("sequence", "more"),
    Kind.CREDIT: ("credit",),
}

_TYPES: dict[str, type] = {
    "deadline": int,
    "repeatable": bool,
    "route": str,
    "pool": str,
    "more": bool,
    "sequence": int,
    "credit": int,
    "upgrade": str,
    "size": int,
    "status": int,
    "duration": int,
    "traceparent": str,
    "caller_span": str,
    "group": str,
    "partition": str,
    "digest": str,
    "sent": int,
    "error": str,
}


def parse_envelope(
    *,
    kind: str | None,
    correlation_id: str | None,
    app_id: str | None,
    reply_to: str | None,
    headers: Mapping[str, Any],
) -> Envelope:
    """The envelope of a received message. Raises WireError naming what is missing or wrong.

    The expiration is the broker's business and is not read back.
    """
    try:
        known = Kind(kind or "")
    except ValueError:
        raise WireError(f"type {_shown(kind)} is not known") from None
    if not correlation_id or not app_id:
        raise WireError("correlation_id and app_id must be set")
    version = headers.get("version")
    if not _is(version, int) or version != VERSION:
        raise WireError(f"version {_shown(version)} is not {VERSION}")
    attempt: Any = headers.get("attempt")
    if not _is(attempt, int) or not 1 <= attempt <= 1000:
        raise WireError("attempt must be a number from 1 to 1000")
    found: dict[str, Any] = {}
    for name, expected in _TYPES.items():
        value = headers.get(name)
        if value is None:
            continue
        if not _is(value, expected):
            raise WireError(f"header {name} is not of type {expected.__name__}")
        if expected is int and not 0 <= value < _MOST:
            raise WireError(f"header {name} is out of bounds")
        found[name] = value
    reason = headers.get("reason")
    if reason is not None:
        try:
            found["reason"] = Reason(reason)
        except ValueError:
            raise WireError(f"reason {_shown(reason)} is not known") from None
    leg = headers.get("leg")
    if leg is not None:
        try:
            found["leg"] = Leg(leg)
        except ValueError:
            raise WireError(f"leg {_shown(leg)} is not known") from None
        if "group" not in found:
            raise WireError("a leg must have the header group")
    for name in _NEEDED.get(known, ()):
        if name not in found:
            raise WireError(f"a {known} must have the header {name}")
    if known is Kind.REQUEST and not (reply_to and _REPLY_TO.fullmatch(reply_to) and _ID.fullmatch(app_id)):
        # Whoever answers publishes to these keys, and the broker closes the channel of one who may not.
        raise WireError("a request must have a reply_to like response.<edge id>, and an edge's id for app_id")
    if found.get("upgrade", WEBSOCKET) != WEBSOCKET:
        raise WireError(f"upgrade {_shown(found['upgrade'])} is not known")
    return Envelope(known, correlation_id, app_id, reply_to, None, attempt, **found)


def _is(value: object, expected: type) -> bool:
    # bool is a subclass of int; on the wire they are different types.
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


def _shown(value: object) -> str:
    # A stranger's value is not turned into text: that of a table may be huge, and of an int beyond bounds it raises.
    return repr(value[:40]) if isinstance(value, str) else f"of type {type(value).__name__}"
