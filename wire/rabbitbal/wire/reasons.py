"""Every way a request can end without an application's answer, and the response that the client then gets.

One table: no handler picks a status by itself. docs/behavior.md describes it for people.
"""

from enum import StrEnum

from rabbitbal.wire.message import Response

ERROR_FIELD = b"Rabbitbal-Error"


class Reason(StrEnum):
    """Why a request ended. The value is what ``Rabbitbal-Error`` and the access log say."""

    BAD_REQUEST = "bad-request"
    HEADER_TOO_LARGE = "header-too-large"
    TARGET_TOO_LONG = "target-too-long"
    BODY_TOO_LARGE = "body-too-large"
    SUSPECTED_BOT = "suspected-bot"
    UNROUTABLE = "unroutable"
    OVERLOADED = "overloaded"
    QUEUE_TIMEOUT = "queue-timeout"
    WORKER_TIMEOUT = "worker-timeout"
    WORKER_LOST = "worker-lost"
    POISON = "poison"
    APP_ERROR = "app-error"
    BAD_RESPONSE = "bad-response"
    BROKER_DOWN = "broker-down"
    CLIENT_GONE = "client-gone"
    SUPERSEDED = "superseded"
    EDGE_ERROR = "edge-error"


_TABLE: dict[Reason, tuple[int, str]] = {
    Reason.BAD_REQUEST: (400, "the request is not valid HTTP"),
    Reason.HEADER_TOO_LARGE: (431, "the header fields are larger than this proxy accepts"),
    Reason.TARGET_TOO_LONG: (414, "the request target is longer than this proxy accepts"),
    Reason.BODY_TOO_LARGE: (413, "the request body is larger than this proxy accepts"),
    Reason.SUSPECTED_BOT: (429, "this client behaves like a program that this route does not serve"),
    Reason.UNROUTABLE: (503, "no pool of workers is bound to this route"),
    Reason.OVERLOADED: (503, "too many requests are waiting already"),
    Reason.QUEUE_TIMEOUT: (504, "no worker took the request before its deadline; it was not run"),
    Reason.WORKER_TIMEOUT: (504, "the worker did not answer before the deadline"),
    Reason.WORKER_LOST: (502, "the request may have started and its worker or its queue was lost; not safe to repeat"),
    Reason.POISON: (502, "the request was tried three times and each time its worker was lost"),
    Reason.APP_ERROR: (500, "the application raised an error"),
    Reason.BAD_RESPONSE: (502, "the application's response is not valid HTTP"),
    Reason.BROKER_DOWN: (503, "the message broker cannot be reached"),
    # Never sent, as nobody is there; the number that nginx logs for it.
    Reason.CLIENT_GONE: (499, "the client closed the connection"),
    # Never sent either: the client has the other copy's answer.
    Reason.SUPERSEDED: (499, "another copy of the request was answered first"),
    Reason.EDGE_ERROR: (500, "the edge failed; this is a defect of Rabbitbal"),
}


def status_of(reason: Reason) -> int:
    """The HTTP status that stands for the reason."""
    return _TABLE[reason][0]


def error_response(reason: Reason, retry_after: int | None = None) -> Response:
    """What the client gets. ``retry_after`` is in seconds (RFC 9110 §10.2.3)."""
    status, text = _TABLE[reason]
    body = f"rabbitbal: {reason}: {text}\n".encode()
    fields = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (ERROR_FIELD, reason.value.encode()),
    ]
    if retry_after is not None:
        fields.append((b"Retry-After", b"%d" % max(1, retry_after)))
    return Response(status, fields, body)
