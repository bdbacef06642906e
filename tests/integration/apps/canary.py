"""The tests' application with four answers that are others: what a replay must find, and no more."""

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]

# It lies beside this file in the worker's container.
probe = importlib.import_module("probe")


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    path = scope.get("path", "")

    async def changed(message: Message) -> None:
        if message["type"] == "http.response.start":
            if path == "/status/201":
                message = {**message, "status": 202}
            elif path == "/status/203":
                message = {**message, "headers": [*message["headers"], (b"x-canary", b"tweet")]}
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            if path.startswith("/echo"):
                body = body.replace(b'"method": "GET"', b'"method": "PUT"')
            elif path == "/stream":
                body = body.replace(b"chunk", b"piece")[:-2]
            message = {**message, "body": body}
        await send(message)

    await probe.app(scope, receive, changed)
