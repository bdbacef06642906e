"""Several responses in one: `multipart/mixed` (RFC 2046 §5.1.3) of `application/http` (RFC 9112 §10.2); pure."""

from dataclasses import dataclass
from secrets import token_hex

from rabbitbal.wire.fields import Fields
from rabbitbal.wire.message import Response, encode_response
from rabbitbal.wire.reasons import ERROR_FIELD, Reason


@dataclass(frozen=True, slots=True)
class Part:
    """The answer to one copy, as an HTTP message. ``reason`` is None where an application gave it."""

    key: str
    pool: str | None
    reason: Reason | None
    message: bytes


def combined(parts: list[Part]) -> Response:
    """Status 200, a part for each answer, in order.

    The boundary is 128 random bits, so that no part can be made to contain it.
    """
    boundary = f"rabbitbal-{token_hex(16)}".encode()
    pieces: list[bytes] = []
    for part in parts:
        pieces += [b"--", boundary, b"\r\n", *_head(part), b"\r\n", part.message, b"\r\n"]
    pieces += [b"--", boundary, b"--\r\n"]
    body = b"".join(pieces)
    fields: Fields = [
        (b"Content-Type", b'multipart/mixed; boundary="%s"' % boundary),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
    ]
    return Response(200, fields, body)


def failed(parts: list[Part]) -> bytes:
    """The value of ``Rabbitbal-Failed``, the keys that no application answered; empty where all is well."""
    return ", ".join(part.key for part in parts if part.reason is not None).encode()


def message_of(response: Response) -> bytes:
    """The bytes of a part's response, without what an application says in our name. Raises WireError."""
    fields = [field for field in response.fields if not field[0].lower().startswith(b"rabbitbal-")]
    return encode_response(Response(response.status, fields, response.body))


def _head(part: Part) -> list[bytes]:
    lines = [b"Content-Type: application/http; msgtype=response\r\n", b"Rabbitbal-Key: %s\r\n" % part.key.encode()]
    # A worker's word, which may be anything.
    if part.pool is not None and part.pool.isascii() and part.pool.isprintable() and len(part.pool) <= 200:
        lines.append(b"Rabbitbal-Pool: %s\r\n" % part.pool.encode())
    if part.reason is not None:
        lines.append(b"%s: %s\r\n" % (ERROR_FIELD, part.reason.value.encode()))
    return lines
