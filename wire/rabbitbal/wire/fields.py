"""HTTP header fields: an ordered list of (name, value) byte pairs, and what a proxy does to them.

Order and repeats are kept: two ``Set-Cookie`` fields stay two (RFC 9110 §5.3).
"""

import re
from collections.abc import Iterable, Iterator

from rabbitbal.wire.errors import WireError

Field = tuple[bytes, bytes]
Fields = list[Field]

# RFC 9110 §5.6.2: token = 1*tchar.
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 §5.5: field-content is VCHAR, obs-text, SP and HTAB; "Field values containing CR, LF, or NUL characters are
# invalid and dangerous".
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

# RFC 9110 §7.6.1: "intermediaries SHOULD remove or replace fields that are known to require removal before forwarding,
# whether or not they appear as a connection-option". Trailer describes a framing that does not survive the broker.
# The two Proxy- credentials concern the next proxy only (RFC 9110 §11.7).
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

# RFC 9110 §7.6.1: "A sender MUST NOT send a connection option corresponding to a field that is intended for all
# recipients". A client that names these asks us to break the message; we do not.
_NEVER_CONNECTION_OPTIONS = frozenset({b"host", b"content-length"})


def check_field(name: bytes, value: bytes) -> None:
    """Raise WireError unless the field can stand in a message (RFC 9110 §5.1, §5.5)."""
    if not _TOKEN.fullmatch(name):
        raise WireError(f"field name {name[:40]!r} is not a token")
    if not _VALUE.fullmatch(value):
        raise WireError(f"value of field {name[:40]!r} contains a control character")


def is_token(text: bytes) -> bool:
    """True for a method or field name (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def values(fields: Iterable[Field], name: bytes) -> Iterator[bytes]:
    """The values of every field of that (lower-case) name, in order."""
    return (value for key, value in fields if key.lower() == name)


def first(fields: Iterable[Field], name: bytes) -> bytes | None:
    """The first value of that (lower-case) name, or None."""
    return next(values(fields, name), None)


def without(fields: Iterable[Field], *names: bytes) -> Fields:
    """The fields less those of the given (lower-case) names."""
    return [field for field in fields if field[0].lower() not in names]


def end_to_end(fields: Iterable[Field]) -> Fields:
    """The fields that go on to the next hop: less the hop-by-hop ones and those that ``Connection`` names.

    RFC 9110 §7.6.1: "Intermediaries MUST parse a received Connection header field before a message is forwarded and,
    for each connection-option in this field, remove any header or trailer field(s) from the message with the same name
    as the connection-option, and then remove the Connection header field itself".
    """
    fields = list(fields)
    options = {
        option.strip().lower() for value in values(fields, b"connection") for option in value.split(b",")
    } - _NEVER_CONNECTION_OPTIONS
    return [field for field in fields if (name := field[0].lower()) not in HOP_BY_HOP and name not in options]


def content_length(fields: Iterable[Field]) -> int | None:
    """The declared length of the body in bytes, or None where none is declared.

    RFC 9110 §8.6: a recipient of differing or invalid values must reject the message; equal repeats count once.
    """
    declared = {part.strip() for value in values(fields, b"content-length") for part in value.split(b",")}
    if not declared:
        return None
    if len(declared) > 1:
        raise WireError("Content-Length fields differ")
    (digits,) = declared
    # int() would take signs, underscores and spaces; the grammar is 1*DIGIT. 18 digits bound the work.
    if not digits.isdigit() or len(digits) > 18:
        raise WireError("Content-Length is not a number")
    return int(digits)
