"""Messages as no edge or worker would send them. Runs inside containers, too: the standard library and nothing else."""

import time
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any

KINDS = ("request", "response", "body", "credit", "claim", "redelivered", "cancel", "probe", "ended")
INTEGERS = (0, 1, 2, 3, 5, 255, 256, 65_536, 262_144, 2**31 - 1, 2**31, 2**53, 2**63 - 1, -1, -256, -(2**31), -(2**63))
# Not a number: each of them could be taken for one, or break who prints it.
STRANGE: tuple[Any, ...] = (
    None, True, False, "", "1", "true", "-1", "x" * 2000, "\u20ac", b"1", b"\xff\xfe", 1.5, -0.0, [], [1], {},
    {"a": [1, {"b": None}]}, Decimal("1.5"), datetime(2026, 1, 1, tzinfo=UTC), "\x00", "a\r\nb: c",
)  # fmt: skip
NUMBERS = ("version", "attempt", "deadline", "sequence", "credit", "size", "status", "duration", "sent")
FLAGS = ("repeatable", "more")
TEXTS = ("route", "pool", "reason", "upgrade", "traceparent", "caller_span", "error")
REASONS = ("app-error", "bad-response", "worker-lost", "poison", "client-gone", "overloaded", "no-such-reason")

REQUEST = (
    b"POST /probe/mirror?a=1 HTTP/1.1\r\nHost: malformed.example\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 5\r\n\r\nhello"
)
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nContent-Length: 5\r\n\r\nhello"
SPLICES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\r\n\r\n", b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n",
    b"\xff", b" folded\r\n", b"Connection: close\r\n", b"HTTP/1.1 ", b"X" * 140_000,
)  # fmt: skip


def headers(random: Random, base: dict[str, Any], changes: int = 2) -> dict[str, Any]:
    """With so many of them wrong, missing, or merely odd."""
    found = dict(base)
    for name in random.sample((*NUMBERS, *FLAGS, *TEXTS), changes):
        found[name] = odd(random, name)
    if random.random() < 0.2:
        found.pop(random.choice(list(found) or ["version"]), None)
    if random.random() < 0.1:
        found["x" * random.choice((1, 100))] = random.choice(STRANGE)
    return found


def odd(random: Random, name: str) -> Any:
    if random.random() < 0.4:
        return random.choice(STRANGE)
    if name in NUMBERS:
        return random.choice(INTEGERS)
    if name in FLAGS:
        return random.choice((True, False, 1, 0, "true"))
    return random.choice((*REASONS, "default", "websocket", "h2c", "", "\x00", "a" * 300))


def payload(random: Random, base: bytes) -> bytes:
    kind = random.randrange(6)
    if kind == 0:
        return base[: random.randrange(len(base) + 1)]
    if kind == 1:
        changed = bytearray(base)
        for _ in range(random.choice((1, 3))):
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        return bytes(changed)
    if kind == 2:
        place = random.randrange(len(base))
        return base[:place] + random.choice(SPLICES) + base[place:]
    if kind == 3:
        return random.randbytes(random.choice((0, 1, 100, 70_000)))
    if kind == 4:
        return base + random.randbytes(random.choice((1, 1000)))
    return base


def properties(random: Random, base: dict[str, Any]) -> dict[str, Any]:
    """One of the standard properties wrong or missing."""
    found = dict(base)
    name = random.choice(("type", "correlation_id", "app_id", "reply_to", "content_type"))
    found[name] = random.choice((None, "", "x", "a" * 255, "\u20ac\u20ac", "response.", "*", "#", random.choice(KINDS)))
    return found


def request_headers() -> dict[str, Any]:
    """Those of a good request that may wait for three seconds."""
    deadline = int((time.time() + 3) * 1000)
    return {"version": 1, "attempt": 1, "deadline": deadline, "repeatable": True, "route": "default"}


# Requests that docs/wire-format.md calls malformed beyond doubt: what is changed of a good one.
BAD_HEADERS: tuple[dict[str, Any], ...] = (
    {"version": 2}, {"version": None}, {"version": "1"}, {"version": True}, {"attempt": 0}, {"attempt": 1001},
    {"attempt": -1}, {"attempt": None}, {"attempt": True}, {"attempt": 1.0}, {"deadline": None}, {"deadline": "soon"},
    {"deadline": True}, {"repeatable": 1}, {"repeatable": None}, {"route": None}, {"route": 5}, {"route": {"a": 1}},
    {"reason": "no-such-reason"}, {"reason": 5}, {"pool": 7}, {"traceparent": 1}, {"traceparent": []}, {"sent": "now"},
    {"sent": False}, {"status": "200"}, {"duration": 1.5}, {"error": 3},
)  # fmt: skip
BAD_PROPERTIES: tuple[dict[str, Any], ...] = (
    {"type": None}, {"type": ""}, {"type": "Request"}, {"type": "no-such-kind"}, {"type": "response"},
    {"type": "claim"}, {"type": "cancel"}, {"correlation_id": None}, {"correlation_id": ""}, {"app_id": None},
    {"app_id": ""}, {"reply_to": None}, {"reply_to": ""},
)  # fmt: skip
BAD_PAYLOADS = (
    b"", b"garbage", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\n\n", b"G T / HTTP/1.1\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n", b"GET /\x7f HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nNo colon\r\n\r\n", b"GET / HTTP/1.1\r\nBad name: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: a\r\n folded\r\n\r\n", b"GET / HTTP/1.1\r\nX : a\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n", b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
    b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"POST / HTTP/1.1\r\n\r\nbody",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nbody", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nbody",
    b"POST / HTTP/1.1\r\nContent-Length: 04\r\n\r\nbody", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\nbody",
    b"HTTP/1.1 200 OK\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody",
    b"GET / HTTP/1.1\r\nX: " + b"x" * 140_000 + b"\r\n\r\n",
)  # fmt: skip
