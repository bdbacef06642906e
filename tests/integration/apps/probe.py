"""The demo application, with pages that only tests ask for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import demo

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Page = Callable[[Message, Receive, Send], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    page = PAGES.get(scope.get("path", ""))
    if scope["type"] == "http" and scope["path"].startswith("/echo"):
        page = echo
    if scope["type"] != "http" or page is None:
        await demo.app(scope, receive, send)
        return
    await page(scope, receive, send)


def key_of(scope: Message) -> str:
    query: str = scope["query_string"].decode()
    return dict(part.partition("=")[::2] for part in query.split("&")).get("key", "")


def say(event: str, scope: Message) -> None:
    demo.say(event, key_of(scope))


async def hold(scope: Message, receive: Receive, send: Send) -> None:
    """Holds its slot for ever, and says how that ended."""
    say("ran", scope)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("cancelled", scope)
        raise


async def stubborn(scope: Message, receive: Receive, send: Send) -> None:
    """Takes three seconds to clean up when it is cancelled."""
    try:
        await hold(scope, receive, send)
    finally:
        await asyncio.sleep(3)


async def special(scope: Message, receive: Receive, send: Send) -> None:
    """Fields that must survive, and fields that must not."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"set-cookie", b"a=1; Path=/"),
                (b"set-cookie", b"b=2; Expires=Thu, 01 Jan 2032 00:00:00 GMT"),
                (b"x-repeated", b"one"),
                (b"x-between", b"-"),
                (b"x-repeated", b"two"),
                (b"x-empty", b""),
                (b"x-bytes", b"caf\xc3\xa9"),
                (b"connection", b"X-Hop, keep-alive"),
                (b"x-hop", b"for the next hop only"),
                (b"keep-alive", b"timeout=5"),
                (b"proxy-authenticate", b"Basic"),
                (b"rabbitbal-worker", b"forged"),
                (b"rabbitbal-error", b"forged"),
                (b"server", b"probe"),
                (b"x-accel-redirect", b"/whoami"),
                (b"content-length", b"5"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"hello"})


async def not_modified(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", b'"v1"')]})
    await send({"type": "http.response.body"})


async def no_content(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": [(b"x-kept", b"yes")]})
    await send({"type": "http.response.body"})


async def whole_body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """The demonstration's page of that name, for every path that begins so."""
    await demo.app({**scope, "path": "/echo"}, receive, send)


async def mirror(scope: Message, receive: Receive, send: Send) -> None:
    """The body as it came."""
    body = await whole_body(receive)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"x/y")]})
    await send({"type": "http.response.body", "body": body})


async def raises(scope: Message, receive: Receive, send: Send) -> None:
    say("ran", scope)
    raise ValueError("as the test wanted")


async def silent(scope: Message, receive: Receive, send: Send) -> None:
    say("ran", scope)


async def short(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
    await send({"type": "http.response.body", "body": b"short"})


async def head_only(scope: Message, receive: Receive, send: Send) -> None:
    """Begins a response and never goes on."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await hold(scope, receive, send)


async def breaks(scope: Message, receive: Receive, send: Send) -> None:
    """Raises in the middle of its body, when half of it has left."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    await asyncio.sleep(0.5)
    raise ValueError("as the test wanted")


async def empty_stream(scope: Message, receive: Receive, send: Send) -> None:
    """A body in pieces that turns out to have none."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(0.1)
    await send({"type": "http.response.body"})


async def early(scope: Message, receive: Receive, send: Send) -> None:
    """Answers without reading the body."""
    say("ran", scope)
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


async def both_ways(scope: Message, receive: Receive, send: Send) -> None:
    """Sends each piece of the body back as it comes."""
    say("ran", scope)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})


PAGES: dict[str, Page] = {
    "/probe/head": head_only,
    "/probe/breaks": breaks,
    "/probe/empty": empty_stream,
    "/probe/early": early,
    "/probe/both": both_ways,
    "/probe/hold": hold,
    "/probe/stubborn": stubborn,
    "/probe/special": special,
    "/probe/304": not_modified,
    "/probe/204": no_content,
    "/probe/mirror": mirror,
    "/probe/raises": raises,
    "/probe/silent": silent,
    "/probe/short": short,
}
