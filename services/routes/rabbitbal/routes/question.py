"""What a table is asked: the parts of a request that routes look at, in a normal form. The request is not changed."""

import re
from dataclasses import dataclass

from rabbitbal.wire.fields import Fields, first

# RFC 3986 §2.3: these mean the same percent-encoded or not.
_UNRESERVED = re.compile(rb"%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")


@dataclass(frozen=True, slots=True)
class Question:
    """``host`` is in lower case, without its port. ``path`` has no dot segments and no needless percent-encoding."""

    method: str
    host: str
    path: str
    fields: Fields


def question(method: str, target: bytes, fields: Fields) -> Question:
    """Of a request with this target, in origin form."""
    return Question(method, host_of(first(fields, b"host") or b""), path_of(target), fields)


def host_of(value: bytes) -> str:
    """A host as routes compare it: without port and final dot."""
    text = value.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0].rstrip(".")


def path_of(target: bytes) -> str:
    """The path of a target: unreserved characters decoded (RFC 3986 §6.2.2.2), dot segments removed (§5.2.4)."""
    path = target.partition(b"?")[0]
    if b"%" in path:
        path = _UNRESERVED.sub(lambda match: bytes([int(match[1], 16)]), path)
    if b"/." in path:
        path = _without_dots(path)
    return path.decode("latin-1")


def _without_dots(path: bytes) -> bytes:
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
