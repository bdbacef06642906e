"""HTTP/1.1 messages and their bytes, media type ``message/http`` (RFC 9112 §10.1).

The payload of an AMQP message delimits the body: it is everything behind the empty line. ``Content-Length`` is kept
true to it, so the payload reads as a plain HTTP message in any tool. Where ``more`` of the body follows in messages of
its own, ``Content-Length`` is that of the whole body, or there is none.
"""

import re
from dataclasses import dataclass, field
from http import HTTPStatus

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Fields, check_field, content_length, is_token, without

CONTENT_TYPE = "message/http"

# The head of a message: start line and fields. Larger ones are refused in both directions.
MAX_HEAD = 128 * 1024

# RFC 9112 §3.2: request-target has no whitespace and no control characters. Octets above 0x7f are not URI characters,
# but clients send them and applications read them, so they travel untouched.
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_STATUS = re.compile(rb"[1-5][0-9]{2}")
# RFC 9112 §6.3: a response with one of these "is always terminated by the first empty line after the header fields".
_BODILESS = frozenset({204, 304})
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``target`` is as the client sent it: path and query, still percent-encoded. ``body`` is the whole of
    it, or its first bytes where more follows. ``upgrade`` is told by the envelope."""

    method: str
    target: bytes
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    upgrade: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A final response (status 200 to 599), or 101. ``body`` is the whole of it, or its first bytes."""

    status: int
    fields: Fields = field(default_factory=list)
    body: bytes = b""


def encode_request(request: Request, *, more: bool = False) -> bytes:
    """The bytes of a request. Raises WireError for what would not decode again."""
    method = request.method.encode("ascii", "replace")
    if not is_token(method):
        raise WireError(f"method {request.method[:40]!r} is not a token")
    if not _TARGET.fullmatch(request.target):
        raise WireError("request target is empty or contains whitespace or a control character")
    fields = _with_length(request.fields, request.body, more=more)
    return _encode(b"%s %s HTTP/1.1\r\n" % (method, request.target), fields, request.body)


def encode_response(response: Response, *, more: bool = False) -> bytes:
    """The bytes of a response. Raises WireError for what would not decode again.

    A response without a body keeps the ``Content-Length`` it has: in answer to HEAD, and with 304, it tells the length
    that the body would have had (RFC 9110 §8.6).
    """
    _check_status(response.status, response.body, more=more)
    fields = _with_length(response.fields, response.body, keep=True, more=more)
    phrase = _PHRASES.get(response.status, b"")
    return _encode(b"HTTP/1.1 %d %s\r\n" % (response.status, phrase), fields, response.body)


def decode_request(payload: bytes, *, more: bool = False) -> Request:
    """A request from its bytes. Raises WireError."""
    start, fields, body = _decode(payload)
    parts = start.split(b" ")
    if len(parts) != 3 or parts[2] != b"HTTP/1.1":
        raise WireError("request line is not 'METHOD TARGET HTTP/1.1'")
    if not is_token(parts[0]):
        raise WireError("method is not a token")
    if not _TARGET.fullmatch(parts[1]):
        raise WireError("request target is empty or contains a control character")
    declared = _declared(fields)
    if more:
        _check_more(declared, body)
    elif (declared or body) and declared != [b"%d" % len(body)]:
        raise WireError("body and Content-Length differ")
    return Request(parts[0].decode("ascii"), parts[1], fields, body)


def without_body(request: Request) -> Request:
    """The same request less its body, and less the length of it: what a log needs."""
    return Request(request.method, request.target, without(request.fields, b"content-length"))


def decode_response(payload: bytes, *, more: bool = False) -> Response:
    """A response from its bytes. Raises WireError.

    Whether a declared length without a body is right depends on the request's method: the caller who knows it checks.
    """
    start, fields, body = _decode(payload)
    version, _, rest = start.partition(b" ")
    status, _, phrase = rest.partition(b" ")
    if version != b"HTTP/1.1" or not _STATUS.fullmatch(status):
        raise WireError("status line is not 'HTTP/1.1 STATUS PHRASE'")
    check_field(b"phrase", phrase)
    code = int(status)
    _check_status(code, body, more=more)
    declared = _declared(fields)
    if more:
        _check_more(declared, body)
    elif (declared or body) and declared != [b"%d" % (len(body) or content_length(fields) or 0)]:
        raise WireError("body and Content-Length differ")
    return Response(code, fields, body)


def _check_status(status: int, body: bytes, *, more: bool) -> None:
    # 101 is final in its own way: what follows is another protocol (RFC 9110 §15.2.2).
    if not 200 <= status <= 599 and not (status == 101 and more):
        raise WireError(f"status {status} is not that of a final response")
    if (body or more) and status in _BODILESS:
        raise WireError(f"a response with status {status} has no body")


def _check_more(declared: list[bytes], body: bytes) -> None:
    """The length declared is that of the whole body."""
    if not declared:
        return
    whole = content_length((b"content-length", value) for value in declared)
    if declared != [b"%d" % (whole or 0)]:
        raise WireError("Content-Length is not one plain number")
    if (whole or 0) < len(body):
        raise WireError("body is longer than Content-Length")


def _declared(fields: Fields) -> list[bytes]:
    """The values of Content-Length. Raises WireError on Transfer-Encoding: the broker frames the payload, and whoever
    read it by that field would find another body in it (RFC 9112 §6.3, §11.2)."""
    found = []
    for name, value in fields:
        # The lengths first: they are cheaper to compare than names.
        size = len(name)
        if size == 14 and name.lower() == b"content-length":
            found.append(value)
        elif size == 17 and name.lower() == b"transfer-encoding":
            raise WireError("Transfer-Encoding does not travel")
    return found


def is_whole(response: Response, method: str) -> bool:
    """Whether the body is as long as declared, where a response to that method has a body.

    RFC 9110 §8.6: with HEAD and 304 the declared length is that of a body that is not sent.
    """
    if method == "HEAD" or response.status == 304:
        return True
    declared = content_length(response.fields)
    return declared is None or declared == len(response.body)


def _with_length(fields: Fields, body: bytes, *, keep: bool = False, more: bool) -> Fields:
    """The fields with one true Content-Length, or none where there is no body and none was declared.

    ``keep`` leaves the length that a message without a body declares; with ``more`` what is declared stays.
    """
    declared = _declared(fields)
    if more:
        whole = content_length(fields)
        if whole is None:
            return fields
        if whole < len(body):
            raise WireError("body is longer than Content-Length")
        if declared == [b"%d" % whole]:
            return fields
        return [*without(fields, b"content-length"), (b"Content-Length", b"%d" % whole)]
    length = b"%d" % len(body)
    if declared == [length] or not (declared or body):
        return fields
    # It raises where the values differ or are no number. Equal repeats become one.
    agreed = content_length(fields)
    if keep and not body:
        length = b"%d" % (agreed or 0)
        if declared == [length]:
            return fields
    return [*without(fields, b"content-length"), (b"Content-Length", length)]


def _encode(start: bytes, fields: Fields, body: bytes) -> bytes:
    lines = [start]
    for name, value in fields:
        check_field(name, value)
        lines.append(b"%s: %s\r\n" % (name, value.strip(b" \t")))
    lines.append(b"\r\n")
    head = b"".join(lines)
    if len(head) > MAX_HEAD:
        raise WireError(f"head is larger than {MAX_HEAD} bytes")
    return head + body


def _decode(payload: bytes) -> tuple[bytes, Fields, bytes]:
    end = payload.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0:
        raise WireError(f"no end of head within {MAX_HEAD} bytes")
    start, *lines = payload[:end].split(b"\r\n")
    fields: Fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise WireError("field line without a colon")
        # A line that starts with whitespace (obs-fold) or has it before the colon has no token for a name
        # (RFC 9112 §5.1, §5.2: both must be rejected).
        value = value.strip(b" \t")
        check_field(name, value)
        fields.append((name, value))
    return start, fields, payload[end + 4 :]
