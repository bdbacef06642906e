"""WebSockets of every kind that tests ask for; everything else is the demonstration's.

A connection with a ``key`` in its query prints a line when it begins, and one with the close code when its client has
left.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import demo

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Socket:
    """One connection."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
        self.key = self.query.get("key", "")

    def number(self, name: str, default: int) -> int:
        return int(self.query.get(name, default))

    def say(self, event: str, **more: object) -> None:
        if self.key:
            demo.say(event, self.key, **more)

    async def accept(self, **more: object) -> None:
        await self.receive()
        chosen = next((name for name in self.scope["subprotocols"] if name in demo.SUBPROTOCOLS), None)
        await self.send({"type": "websocket.accept", "subprotocol": chosen, **more})

    async def message(self) -> Message:
        """The next one. Raises demo.Gone with the close code."""
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            raise demo.Gone(message.get("code"), message.get("reason"))
        return message

    async def echo(self) -> None:
        while True:
            await self.send({**await self.message(), "type": "websocket.send"})


async def app(scope: Message, receive: Receive, send: Send) -> None:
    page = PAGES.get(scope.get("path", ""))
    if scope["type"] != "websocket" or page is None:
        await demo.app(scope, receive, send)
        return
    socket = Socket(scope, receive, send)
    socket.say("ran")
    try:
        await page(socket)
    except demo.Gone as gone:
        code, reason = gone.args
        socket.say("gone", at=time.time(), code=code, reason=reason)
    except OSError:
        socket.say("gone", at=time.time(), code=None, reason="send failed")
    except asyncio.CancelledError:
        socket.say("gone", at=time.time(), code=None, reason="cancelled")
        raise


async def echo(socket: Socket) -> None:
    await socket.accept()
    await socket.echo()


async def handshake(socket: Socket) -> None:
    """Says what it saw of the handshake, in the first message unless ``quiet``, and sets two cookies."""
    await socket.accept(headers=[(b"set-cookie", b"a=1"), (b"x-seen", b"yes"), (b"set-cookie", b"b=2; Path=/")])
    scope = socket.scope
    seen = {
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "subprotocols": list(scope["subprotocols"]),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
    }
    if not socket.query.get("quiet"):
        await socket.send({"type": "websocket.send", "text": json.dumps(seen)})
    await socket.echo()


async def close(socket: Socket) -> None:
    await socket.accept()
    await socket.send(
        {"type": "websocket.close", "code": socket.number("code", 1000), "reason": socket.query.get("reason", "")}
    )


async def refuse(socket: Socket) -> None:
    await socket.receive()
    await socket.send({"type": "websocket.close"})


async def deny(socket: Socket) -> None:
    """A response of the application's own, where the server has that extension; else as `refuse`."""
    if "websocket.http.response" not in socket.scope.get("extensions", {}):
        await refuse(socket)
        return
    await socket.receive()
    fields = [(b"content-type", b"text/plain"), (b"x-why", b"no ticket")]
    await socket.send({"type": "websocket.http.response.start", "status": 401, "headers": fields})
    await socket.send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
    await socket.send({"type": "websocket.http.response.body", "body": b"ticket"})


async def fail(socket: Socket) -> None:
    if socket.number("accepted", 0):
        await socket.accept()
    raise ValueError("as the test wanted")


async def nothing(socket: Socket) -> None:
    """Returns without a word."""
    if socket.number("accepted", 0):
        await socket.accept()


async def first(socket: Socket) -> None:
    """Speaks first, a text and a binary message, and closes."""
    await socket.accept()
    await socket.send({"type": "websocket.send", "text": "h\u00e9llo"})
    await socket.send({"type": "websocket.send", "bytes": demo.BLOCK * socket.number("blocks", 1)})
    await socket.send({"type": "websocket.close", "code": 1000})


async def flood(socket: Socket) -> None:
    """Sends as fast as it may, and says how many messages went out."""
    await socket.accept()
    for number in range(1, socket.number("messages", 16) + 1):
        await socket.send({"type": "websocket.send", "bytes": demo.BLOCK})
        socket.say("sent", messages=number)
    await socket.send({"type": "websocket.close", "code": 1000})


async def deaf(socket: Socket) -> None:
    """Takes no message, until the client is gone and long after."""
    await socket.accept()
    await asyncio.Event().wait()


PAGES: dict[str, Callable[[Socket], Awaitable[None]]] = {
    "/echo": echo,
    "/handshake": handshake,
    "/close": close,
    "/refuse": refuse,
    "/deny": deny,
    "/fail": fail,
    "/nothing": nothing,
    "/first": first,
    "/flood": flood,
    "/deaf": deaf,
}
