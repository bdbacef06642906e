"""What a client's request says of itself, before anything of its body is read; pure."""

import re
from typing import Any

from rabbitbal.edge.protocol import TARGET
from rabbitbal.routes.policy import Redeliver
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Fields, content_length, first, values
from rabbitbal.wire.reasons import Reason

# RFC 9110 §9.2.2: "Of the request methods defined by this specification, PUT, DELETE, and safe request methods are
# idempotent." Safe: GET, HEAD, OPTIONS, TRACE (§9.2.1).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://([^/?#]*)([^#]*)")


class Refused(Exception):
    """The request ends here, before it was published. ``retry_after`` is in seconds; None for the reason's own."""

    def __init__(self, reason: Reason, retry_after: int | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.retry_after = retry_after


def target_of(scope: dict[str, Any]) -> tuple[bytes, Fields]:
    """The request target in origin form, and the fields with the Host that it implies. Raises Refused.

    RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
    lacks a Host header field and to any request message that contains more than one Host header field line". §3.2.2:
    a proxy given the absolute form "MUST ignore the received Host header field (if any) and instead replace it with
    the host information of the request-target".
    """
    fields: Fields = list(scope["headers"])
    hosts = sum(1 for _ in values(fields, b"host"))
    if hosts > 1 or (hosts == 0 and scope["http_version"] == "1.1"):
        raise Refused(Reason.BAD_REQUEST)
    target: bytes = scope[TARGET]
    if target.startswith(b"/"):
        return target.partition(b"#")[0], fields
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Refused(Reason.BAD_REQUEST)
    host, rest = absolute[1].rpartition(b"@")[2], absolute[2]
    fields = [(b"host", host), *(field for field in fields if field[0] != b"host")]
    return (rest if rest.startswith(b"/") else b"/" + rest), fields


def declared_length(fields: Fields) -> int | None:
    """The length of the body in bytes, where it is known. Raises Refused."""
    try:
        declared = content_length(fields)
    except WireError as error:
        raise Refused(Reason.BAD_REQUEST) from error
    # RFC 9112 §6.1: a request with "a transfer coding it does not understand" is not for this server. Nobody behind
    # us could undo it either, as the field stays here.
    if any(value.lower() != b"chunked" for value in values(fields, b"transfer-encoding")):
        raise Refused(Reason.BAD_REQUEST)
    # A request that frames no body has none (RFC 9112 §6.3).
    return declared if declared is not None or first(fields, b"transfer-encoding") else 0


def may_run_twice(method: str, fields: Fields, redeliver: Redeliver) -> bool:
    """By the word of its route, or else by its method or the key that its client gave it."""
    if redeliver is Redeliver.AUTO:
        return method in IDEMPOTENT or first(fields, b"idempotency-key") is not None
    return redeliver is Redeliver.ALWAYS


def traceparent(fields: Fields) -> str | None:
    """The trace that the request belongs to (W3C Trace Context §3.2); what is not well formed counts as none."""
    value = first(fields, b"traceparent")
    return value.decode() if value is not None and _TRACEPARENT.fullmatch(value) else None
