"""Codings of bodies (RFC 9110 §8.4) that the standard library undoes. Pure."""

import zlib

from rabbitbal.wire.fields import Fields, values

# A body that is larger than this when it is decoded is not.
MOST = 8 * 1024 * 1024

# RFC 9110 §8.4.1: `deflate` is the zlib format, and x-gzip is gzip. 32: whichever of the two headers there is.
_KNOWN = frozenset({b"gzip", b"x-gzip", b"deflate"})
_IDENTITY = frozenset({b"", b"identity"})


class NotDecoded(Exception):
    """The coding is another one, or the body is not what its fields say."""


def decoded(fields: Fields, body: bytes) -> bytes:
    """The body without its codings. Raises NotDecoded."""
    named = [part.strip().lower() for value in values(fields, b"content-encoding") for part in value.split(b",")]
    # "in the order in which they were applied"
    for coding in reversed(named):
        if coding in _IDENTITY:
            continue
        if coding not in _KNOWN:
            raise NotDecoded(f"the coding {coding[:40].decode('latin-1')}")
        body = _inflated(body)
    return body


def _inflated(body: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    try:
        found = stream.decompress(body, MOST)
    except zlib.error as error:
        raise NotDecoded(str(error)) from None
    if not stream.eof or stream.unused_data:
        raise NotDecoded("too large, cut off, or more than one")
    return found
