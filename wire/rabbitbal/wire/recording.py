"""A recorded exchange, and its line in a file of newline-delimited JSON (docs/replay.md).

A message is a JSON string in which each character U+0000 to U+00FF stands for one byte (Latin-1). So the line reads as
HTTP does, is pure ASCII where it is not, and nothing in it is base64.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.message import Request, Response, decode_request, decode_response, encode_request, encode_response

# Heads and bodies of both messages, with every byte written as six characters.
MOST_LINE = 4 * 1024 * 1024
# What a name, like that of a route or of a worker, may have.
_LONGEST = 300
_MOST = 1 << 53
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARTIAL = "partial"
# What a tap puts in the place of a value that must not be stored, and of a body in which it cannot find such values.
REDACTED = b"[redacted]"


@dataclass(frozen=True, slots=True)
class Partial:
    """Of a body that is not in the record: what is known of it."""

    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and how it ended. Of a message whose body is ``Partial`` only the head is here."""

    id: str
    when: int
    """Milliseconds since the Unix epoch, by the edge's clock."""
    request: Request
    response: Response | None = None
    """None where no application answered."""
    status: int | None = None
    reason: str | None = None
    route: str | None = None
    pool: str | None = None
    worker: str | None = None
    attempt: int = 1
    leg: str | None = None
    group: str | None = None
    app_ms: float | None = None
    queue_ms: float | None = None
    total_ms: float | None = None
    request_body: Partial | None = None
    response_body: Partial | None = None
    decoded: bool = False
    """The response's body is without the coding that its fields name, as in the files of browsers."""


_TIMES = ("app_ms", "queue_ms", "total_ms")


def encode_exchange(exchange: Exchange) -> str:
    """Its line, without the line break. Raises WireError for messages that would not decode again."""
    line: dict[str, Any] = {"id": exchange.id, "when": exchange.when}
    for name in ("route", "pool", "worker", "attempt", "leg", "group", "status", "reason", *_TIMES):
        value = getattr(exchange, name)
        if value is not None or name not in ("leg", "group"):
            line[name] = value
    request = exchange.request
    if request.upgrade is not None:
        line["upgrade"] = request.upgrade
    if exchange.request_body is not None:
        line["request_body"] = _said(exchange.request_body)
    if exchange.response_body is not None:
        line["response_body"] = _said(exchange.response_body)
    if exchange.decoded:
        line["decoded"] = True
    line["request"] = encode_request(request, more=exchange.request_body is not None).decode("latin-1")
    line["response"] = None
    if exchange.response is not None:
        more = exchange.response_body is not None
        line["response"] = encode_response(exchange.response, more=more).decode("latin-1")
    return json.dumps(line)


def _said(part: Partial) -> dict[str, Any]:
    return {"body": _PARTIAL, "size": part.size, "sha256": part.sha256}


def decode_exchange(text: str | bytes) -> Exchange | dict[str, Any]:
    """What a line says: an exchange, or, where it has no request, the recording's own counts. Raises WireError."""
    if len(text) > MOST_LINE:
        raise WireError(f"a line of {len(text)} characters; {MOST_LINE} is the most")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("not JSON; is the file cut off?") from None
    if not isinstance(found, dict):
        raise WireError("not a JSON object")
    if "recorded" in found and "request" not in found:
        return found
    read = Reader(found)
    more, partial = _part(read.get("request_body"), "request_body"), _part(read.get("response_body"), "response_body")
    request = decode_request(_message(read.text("request", most=MOST_LINE)), more=more is not None)
    upgrade = read.optional("upgrade")
    if upgrade is not None:
        request = Request(request.method, request.target, request.fields, request.body, upgrade)
    response = None
    if read.get("response") is not None:
        response = decode_response(_message(read.text("response", most=MOST_LINE)), more=partial is not None)
    return Exchange(
        id=read.text("id"),
        when=read.whole("when"),
        request=request,
        response=response,
        status=None if read.get("status") is None else read.whole("status"),
        attempt=read.whole("attempt"),
        request_body=more,
        response_body=partial,
        decoded=read.get("decoded") is True,
        reason=read.optional("reason"),
        route=read.optional("route"),
        pool=read.optional("pool"),
        worker=read.optional("worker"),
        leg=read.optional("leg"),
        group=read.optional("group"),
        app_ms=read.time("app_ms"),
        queue_ms=read.time("queue_ms"),
        total_ms=read.time("total_ms"),
    )


def _message(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise WireError("a message has characters beyond U+00FF, which stand for no byte") from None


def _part(found: object, name: str) -> Partial | None:
    if found is None:
        return None
    if not isinstance(found, dict) or found.get("body") != _PARTIAL:
        raise WireError(f"{name} must be an object with body: partial")
    read = Reader(found)
    digest = read.optional("sha256")
    if digest is not None and not _SHA256.fullmatch(digest):
        raise WireError(f"sha256 of {name} is no digest")
    return Partial(None if found.get("size") is None else read.whole("size"), digest)


class Reader:
    """The members of a JSON object, of the types that they must have. Raises WireError."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found

    def get(self, name: str) -> Any:
        return self._found.get(name)

    def text(self, name: str, most: int = _LONGEST) -> str:
        value = self._found.get(name)
        if not isinstance(value, str) or len(value) > most:
            raise WireError(f"{name} must be a text of at most {most} characters")
        return value

    def optional(self, name: str) -> str | None:
        return None if self._found.get(name) is None else self.text(name)

    def whole(self, name: str) -> int:
        value = self._found.get(name)
        # bool is a subclass of int.
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
            raise WireError(f"{name} must be a whole number, not negative")
        return value

    def time(self, name: str) -> float | None:
        value = self._found.get(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _MOST:
            raise WireError(f"{name} must be a number, not negative")
        return float(value)
