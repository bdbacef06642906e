"""Which partition of a sticky pool a request belongs to, and the cookie that keeps a client there; pure but for the
random value.

What a client sends is hashed and nothing else: no part of it gets into a key or a queue's name.
"""

from dataclasses import dataclass
from hashlib import sha256
from secrets import token_hex

from rabbitbal.edge.forwarding import is_https
from rabbitbal.routes.policy import Sticky
from rabbitbal.wire.fields import Field, Fields, values
from rabbitbal.wire.topology import PARTITIONS

_BLANK = b" \t"


@dataclass(frozen=True, slots=True)
class Session:
    """``partition`` is a decimal number below PARTITIONS; None leads to any worker. ``cookie`` is the Set-Cookie field
    for a client that has no value yet."""

    partition: str | None = None
    cookie: Field | None = None


def session_of(sticky: Sticky, fields: Fields) -> Session:
    """Of a request with these fields, as `request_fields` made them."""
    value = _given(sticky, fields)
    if value:
        return Session(partition_of(value))
    if sticky.cookie is None or not sticky.issue:
        return Session()
    issued = token_hex(16)
    return Session(partition_of(issued.encode()), _set_cookie(sticky.cookie, issued, secure=is_https(fields)))


def partition_of(value: bytes) -> str:
    """The same in every edge, and for whoever asks later: SHA-256, the first 8 bytes as a number."""
    return str(int.from_bytes(sha256(value).digest()[:8], "big") % PARTITIONS)


def cookie_of(fields: Fields, name: bytes) -> bytes | None:
    """The value of the first cookie of that name (RFC 6265 §4.2.1, §5.4); names are compared with their case.

    A client sends one Cookie field; HTTP/2 may have cut it into several (RFC 9113 §8.2.3). Of cookies of one name the
    first is that of the longest path (RFC 6265 §5.4). What is not a pair is passed over.
    """
    for value in values(fields, b"cookie"):
        for pair in value.split(b";"):
            found, equals, text = pair.partition(b"=")
            if equals and found.strip(_BLANK) == name:
                return text.strip(_BLANK)
    return None


def cookies_for(response: Fields, cookie: Field) -> Fields:
    """The cookie, for a response with these fields; not where the application sets one of that name.

    RFC 6265 §4.1.1: "Servers SHOULD NOT include more than one Set-Cookie header field in the same response with the
    same cookie-name." What the application has in it we cannot know, so it is the one that stays.
    """
    name = _name(cookie[1])
    return [] if any(_name(value) == name for value in values(response, b"set-cookie")) else [cookie]


def _name(set_cookie: bytes) -> bytes:
    return set_cookie.partition(b"=")[0].strip(_BLANK)


def _set_cookie(name: str, value: str, *, secure: bool) -> Field:
    """RFC 6265 §4.1. It lasts as long as the client's session, and no script can read it."""
    return (b"set-cookie", f"{name}={value}; Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}".encode())


def _given(sticky: Sticky, fields: Fields) -> bytes | None:
    """What the client is known by. Empty counts as nothing: it would bring all who send it to one worker."""
    if sticky.cookie is not None:
        return cookie_of(fields, sticky.cookie.encode())
    if sticky.header is not None:
        # RFC 9110 §5.3: several fields of a name are one, joined by commas.
        return b", ".join(values(fields, sticky.header.lower().encode()))
    return None
