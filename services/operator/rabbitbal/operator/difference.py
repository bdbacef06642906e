"""What differs between a recorded answer and one that was given now. Pure, and bounded in what it shows."""

import difflib
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rabbitbal.operator.codings import NotDecoded, decoded
from rabbitbal.wire.fields import Fields, first
from rabbitbal.wire.message import Response
from rabbitbal.wire.recording import REDACTED, Exchange, Partial

# Fields that say something of the moment, the way or the measurement, and nothing of the answer. docs/replay.md lists
# them, and a test compares.
IGNORED = frozenset({b"age", b"date", b"server-timing", b"via", b"x-request-id", b"x-response-time", b"x-runtime"})
# Our own, on their way to a client.
_OWN = b"rabbitbal-"

MOST_MEMBERS = 40
MOST_DEPTH = 60
MOST_LINES = 60
# Lines that are compared with one another: more of them would take seconds.
_COMPARED_LINES = 400
_COMPARED_BYTES = 64 * 1024
_LONGEST = 160


@dataclass(frozen=True, slots=True)
class Difference:
    """``kind`` is `status`, `header` or `body`; ``name`` is of the field, or of a member of a JSON body."""

    kind: str
    name: str
    recorded: str | None
    replayed: str | None
    lines: tuple[str, ...] = ()
    """Instead of the two: a unified diff."""

    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"kind": self.kind, "name": self.name}
        if self.lines:
            return shown | {"lines": list(self.lines)}
        return shown | {"recorded": self.recorded, "replayed": self.replayed}


@dataclass(frozen=True, slots=True)
class Comparison:
    """``unknown`` says why the bodies could not be compared whole, if they could not."""

    differences: list[Difference] = field(default_factory=list)
    unknown: str | None = None

    def kinds(self) -> list[str]:
        return sorted({difference.kind for difference in self.differences})


@dataclass(frozen=True, slots=True)
class Rules:
    """Fields (lower-case) that are ignored besides, or the only ones that are compared."""

    ignore: frozenset[bytes] = frozenset()
    only: frozenset[bytes] | None = None

    def compared(self, name: bytes) -> bool:
        if self.only is not None:
            return name in self.only
        return name not in IGNORED and name not in self.ignore and not name.startswith(_OWN)


@dataclass(frozen=True, slots=True)
class Given:
    """An answer; of a large body ``response`` has the beginning, and the rest is told by ``size`` and ``sha256``."""

    response: Response
    size: int
    sha256: str | None = None

    @property
    def whole(self) -> bool:
        return self.size == len(self.response.body)

    def digest(self) -> str:
        return self.sha256 or hashlib.sha256(self.response.body).hexdigest()


def compare(exchange: Exchange, given: Given, rules: Rules) -> Comparison:
    """The exchange has a response."""
    recorded = exchange.response
    assert recorded is not None  # noqa: S101 - the caller has looked
    found: list[Difference] = []
    if recorded.status != given.response.status:
        found.append(Difference("status", "status", str(recorded.status), str(given.response.status)))
    bodies, unknown = _bodies(exchange, recorded, given)
    # A length differs where the body does, and is not known where that was redacted or is another coding's.
    length = not bodies and recorded.body == given.response.body
    found += _headers(recorded.fields, given.response.fields, rules, length=length)
    return Comparison(found + bodies, unknown)


# --- fields


def _headers(recorded: Fields, replayed: Fields, rules: Rules, *, length: bool) -> Iterator[Difference]:
    one, other = _by_name(recorded), _by_name(replayed)
    for name in sorted(one.keys() | other.keys()):
        if not rules.compared(name) or (name == b"content-length" and not length):
            continue
        was, now = one.get(name, []), other.get(name, [])
        if len(was) == len(now) and REDACTED in was:
            # What was there nobody knows any more.
            known = [(a, b) for a, b in zip(was, now, strict=True) if a != REDACTED]
            was, now = [a for a, _ in known], [b for _, b in known]
        if was != now:
            yield Difference("header", name.decode("latin-1"), _values(was), _values(now))


def _by_name(fields: Fields) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        key = name.lower()
        # Of a cookie the name is compared: what it holds is made for one client.
        if key == b"set-cookie" and value != REDACTED:
            value = value.partition(b"=")[0].strip()
        found.setdefault(key, []).append(value)
    return found


def _values(values: list[bytes]) -> str | None:
    return _cut(b", ".join(values).decode("latin-1")) if values else None


# --- bodies


def _bodies(exchange: Exchange, recorded: Response, given: Given) -> tuple[list[Difference], str | None]:
    if exchange.response_body is not None:
        return _partial(exchange.response_body, given)
    was, now = recorded.body, given.response.body
    if was == REDACTED:
        return [], "redacted"
    if not given.whole:
        whole = Partial(len(was), hashlib.sha256(was).hexdigest())
        return _partial(whole, given)
    if was == now:
        return [], None
    try:
        was = was if exchange.decoded else decoded(recorded.fields, was)
        now = decoded(given.response.fields, now)
    except NotDecoded:
        return [_digests(was, now)], None
    if was == now:
        return [], None
    types = (_media_type(recorded.fields), _media_type(given.response.fields))
    if all(kind.endswith(b"json") for kind in types):
        members = _members(was, now)
        if members is not None:
            return members, None
    if REDACTED in was:
        return [], "redacted"
    return [_texts(was, now) or _digests(was, now)], None


def _partial(part: Partial, given: Given) -> tuple[list[Difference], str | None]:
    """By what is known of the recorded body."""
    if part.size is not None and part.size != given.size:
        return [Difference("body", "size", f"{part.size} bytes", f"{given.size} bytes")], None
    if part.sha256 is None:
        return [], "size only" if part.size is not None else "not recorded"
    if part.sha256 == given.digest():
        return [], None
    return [Difference("body", "sha256", part.sha256[:16], given.digest()[:16])], None


def _media_type(fields: Fields) -> bytes:
    return (first(fields, b"content-type") or b"").partition(b";")[0].strip().lower()


def _digests(was: bytes, now: bytes) -> Difference:
    return Difference("body", "bytes", _digest(was), _digest(now))


def _digest(body: bytes) -> str:
    return f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()[:16]}"


def _texts(was: bytes, now: bytes) -> Difference | None:
    if max(len(was), len(now)) > _COMPARED_BYTES or b"\0" in was + now:
        return None
    try:
        one, other = was.decode().splitlines(), now.decode().splitlines()
    except UnicodeDecodeError:
        return None
    if max(len(one), len(other)) > _COMPARED_LINES:
        return None
    found = difflib.unified_diff(one, other, "recorded", "replayed", lineterm="", n=2)
    lines = [_cut(line) for line in itertools.islice(found, MOST_LINES + 1)]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = ["…"]
    return Difference("body", "text", None, None, tuple(lines)) if lines else None


def _members(was: bytes, now: bytes) -> list[Difference] | None:
    """Of JSON bodies; None where one is no JSON."""
    try:
        found = list(itertools.islice(_unlike("$", json.loads(was), json.loads(now), 0), MOST_MEMBERS + 1))
    except (ValueError, RecursionError):
        return None
    if len(found) > MOST_MEMBERS:
        found[MOST_MEMBERS:] = [Difference("body", "…", "more members differ", "more members differ")]
    return found


_ABSENT = object()


def _unlike(path: str, was: Any, now: Any, depth: int) -> Iterator[Difference]:
    if was == REDACTED.decode() and now is not _ABSENT:
        return
    if depth < MOST_DEPTH and isinstance(was, dict) and isinstance(now, dict):
        for name in [*was, *(name for name in now if name not in was)]:
            yield from _unlike(f"{path}.{_cut(name)}", was.get(name, _ABSENT), now.get(name, _ABSENT), depth + 1)
    elif depth < MOST_DEPTH and isinstance(was, list) and isinstance(now, list):
        for number, (one, other) in enumerate(itertools.zip_longest(was, now, fillvalue=_ABSENT)):
            yield from _unlike(f"{path}[{number}]", one, other, depth + 1)
    # True is 1 in Python.
    elif was != now or isinstance(was, bool) != isinstance(now, bool):
        yield Difference("body", path, _json(was), _json(now))


def _json(value: Any) -> str | None:
    return None if value is _ABSENT else _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
