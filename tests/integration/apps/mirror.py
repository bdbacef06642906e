"""An application that does to the letter what a request's X-Mirror field orders, and prints what it saw of it.

The order is JSON; `integration.differential.case.Order` says what is in it. Other requests are the demonstration's.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import demo

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PATTERN = bytes(range(256)) * 4
MODIFIED = b"Tue, 02 Jan 2024 03:04:05 GMT"
ETAG = b'"v1"'
# gzip of b"hello\n", whatever the zlib that is at hand.
GZIPPED = bytes.fromhex("1f8b08000000000000ffcb48cdc9c9e7020020303a3606000000")


class Failure(Exception):
    """As the order wanted."""


async def app(scope: Message, receive: Receive, send: Send) -> None:
    order = ordered(scope)
    if order is None:
        await demo.app(scope, receive, send)
        return
    seen = Seen(scope, order)
    if order["fail"] == "before":
        seen.say()
        raise Failure
    if order["page"] == "echo":
        await echo(order, seen, receive, send)
        return
    for _ in range({"all": 1 << 30, "some": 1, "none": 0}[order["read"]]):
        if not seen.take(await receive()):
            break
    seen.say()
    if order["fail"] == "silent":
        return
    status, fields, parts = PAGES[order["page"]](scope, order)
    await send({"type": "http.response.start", "status": status, "headers": fields})
    if order["fail"] == "started":
        raise Failure
    await send_parts(order, parts, send)


async def send_parts(order: Message, parts: list[bytes], send: Send) -> None:
    for number, part in enumerate(parts):
        if order["fail"] == "middle" and number == len(parts) // 2:
            raise Failure
        await send({"type": "http.response.body", "body": part, "more_body": True})
        if order["pause"]:
            await asyncio.sleep(order["pause"] / 1000)
    if order["fail"] == "unfinished":
        return
    await send({"type": "http.response.body"})
    if order["fail"] == "end":
        raise Failure


async def echo(order: Message, seen: "Seen", receive: Receive, send: Send) -> None:
    """The body goes back while it comes in."""
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in order["fields"]]
    await send({"type": "http.response.start", "status": order["status"], "headers": fields})
    more = True
    while more:
        message = await receive()
        more = seen.take(message)
        if piece := message.get("body", b""):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    seen.say()
    await send({"type": "http.response.body"})


def ordered(scope: Message) -> Message | None:
    if scope["type"] != "http":
        return None
    found = [value for name, value in scope["headers"] if name == b"x-mirror"]
    order: Message | None = json.loads(found[0]) if found else None
    return order


class Seen:
    """What came of the request, for the log."""

    def __init__(self, scope: Message, order: Message) -> None:
        self._scope = scope
        # Now: a server may put the trailer's fields into the same list later.
        self._headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        self._key = order["key"]
        self._digest = hashlib.sha256()
        self._size = 0
        self._ending = "unread"

    def take(self, message: Message) -> bool:
        """False: there is no more."""
        if message["type"] == "http.disconnect":
            self._ending = "disconnected"
            return False
        body = message.get("body", b"")
        self._digest.update(body)
        self._size += len(body)
        self._ending = "unread" if message.get("more_body") else "whole"
        return self._ending == "unread"

    def say(self) -> None:
        scope = self._scope
        seen = {
            "event": "mirror",
            "key": self._key,
            "method": scope["method"],
            "http_version": scope["http_version"],
            "scheme": scope["scheme"],
            "path": scope["path"],
            "raw_path": scope["raw_path"].decode("latin-1"),
            "query": scope["query_string"].decode("latin-1"),
            "root_path": scope.get("root_path", ""),
            "headers": [field for field in self._headers if field[0] != "x-mirror"],
        }
        # How far a body was read that was not read to its end is a matter of timing.
        if self._ending == "whole":
            seen |= {"size": self._size, "digest": self._digest.hexdigest()}
        print(json.dumps(seen | {"body": self._ending}), flush=True)


Response = tuple[int, list[tuple[bytes, bytes]], list[bytes]]


def plain(scope: Message, order: Message) -> Response:
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in order["fields"]]
    return order["status"], fields, [pattern(size) for size in order["parts"]]


def pattern(size: int) -> bytes:
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


def file(scope: Message, order: Message) -> Response:
    """A representation with validators: RFC 9110 §13.2.2 and §14.2, single ranges only."""
    asked: dict[bytes, bytes] = dict(scope["headers"])
    whole = pattern(sum(order["parts"]))
    fields = [(b"etag", ETAG), (b"last-modified", MODIFIED), (b"accept-ranges", b"bytes")]
    if (match := asked.get(b"if-match")) is not None and match != b"*" and ETAG not in match:
        return 412, [(b"etag", ETAG), (b"content-length", b"0")], []
    if (match := asked.get(b"if-none-match")) is not None:
        if match == b"*" or ETAG in match:
            return 304, fields, []
    elif asked.get(b"if-modified-since") == MODIFIED:
        return 304, fields, []
    wanted = asked.get(b"range", b"")
    if asked.get(b"if-range", ETAG) not in (ETAG, MODIFIED):
        wanted = b""
    unit, _, span = wanted.partition(b"=")
    first, _, last = span.strip().partition(b"-")
    if unit == b"bytes" and (first + last).isdigit():
        start = int(first) if first else max(0, len(whole) - int(last))
        end = min(int(last), len(whole) - 1) if first and last else len(whole) - 1
        if start > end:
            fields += [(b"content-range", b"bytes */%d" % len(whole)), (b"content-length", b"0")]
            return 416, fields, []
        fields += [
            (b"content-range", b"bytes %d-%d/%d" % (start, end, len(whole))),
            (b"content-length", b"%d" % (end + 1 - start)),
        ]
        return 206, fields, [whole[start : end + 1]]
    return 200, [*fields, (b"content-length", b"%d" % len(whole))], [whole]


def encoded(scope: Message, order: Message) -> Response:
    """Compressed where the client takes it."""
    asked = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
    fields = [(b"content-type", b"text/plain"), (b"vary", b"accept-encoding")]
    if b"gzip" in asked:
        return 200, [*fields, (b"content-encoding", b"gzip"), (b"etag", b'W/"v1"')], [GZIPPED]
    return 200, fields, [b"hello\n"]


PAGES: dict[str, Callable[[Message, Message], Response]] = {"plain": plain, "file": file, "encoded": encoded}
