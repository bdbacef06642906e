"""Which recorded requests are sent again, and as what. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from rabbitbal.operator.errors import Misused
from rabbitbal.wire.envelope import Leg
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Fields, check_field, first, is_token, values, without
from rabbitbal.wire.flow import INLINE
from rabbitbal.wire.message import Request
from rabbitbal.wire.recording import Exchange

# RFC 9110 §9.2.1: "Of the request methods defined by this specification, the GET, HEAD, OPTIONS, and TRACE methods are
# defined to be safe."
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# RFC 9110 §9.2.2: "PUT, DELETE, and safe request methods are idempotent."
IDEMPOTENT = SAFE | {"PUT", "DELETE"}

# Copies that no client's answer depended on.
_SECOND = frozenset({Leg.SHADOW.value, Leg.HEDGE.value})


def methods(text: str | None) -> frozenset[str]:
    """Raises Misused."""
    if text is None:
        return SAFE
    named = [part.strip() for part in text.split(",")]
    if not all(is_token(name.encode()) for name in named):
        raise Misused(f"--methods {text!r} must read like GET,POST")
    return frozenset(named)


def headers(texts: Iterable[str]) -> Fields:
    """Raises Misused."""
    fields: Fields = []
    for text in texts:
        name, colon, value = text.partition(":")
        field = (name.strip().encode(), value.strip().encode())
        try:
            check_field(*field)
        except WireError as error:
            raise Misused(f"--header {text[:60]!r}: {error}") from None
        if not colon or field[0].lower() in (b"content-length", b"transfer-encoding"):
            raise Misused(f"--header {text[:60]!r} must read like 'Name: value', and leave the framing alone")
        fields.append(field)
    return fields


def chosen(exchanges: Iterable[Exchange], methods: frozenset[str]) -> tuple[list[Exchange], "Counter[str]"]:
    """Those that are sent again, and the number of the others by what speaks against them."""
    taken, left = [], Counter[str]()
    groups: set[str] = set()
    for exchange in exchanges:
        why = _against(exchange, methods, groups)
        if why is None:
            taken.append(exchange)
            if exchange.group is not None:
                groups.add(exchange.group)
        else:
            left[why] += 1
    return taken, left


def _against(exchange: Exchange, methods: frozenset[str], groups: set[str]) -> str | None:
    request = exchange.request
    if request.method not in methods:
        return request.method
    if request.upgrade is not None or any(values(request.fields, b"sec-websocket-key")):
        return "WebSocket"
    if exchange.request_body is not None:
        return "body not recorded"
    if len(request.body) > INLINE:
        return "body over 64 KiB"
    if exchange.leg in _SECOND or exchange.group in groups:
        return "further copy"
    return None


def anew(request: Request, given: Fields, host: str | None) -> Request:
    """The request with these fields in the place of those that have their names."""
    fields = request.fields
    if host is not None:
        given = [*given, (b"Host", host.encode())]
        if first(fields, b"x-forwarded-host") is not None:
            given.append((b"X-Forwarded-Host", host.encode()))
    if given:
        fields = [*without(fields, *(name.lower() for name, _ in given)), *given]
    return replace(request, fields=fields)
