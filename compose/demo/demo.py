"""The application of the demonstration: plain ASGI, no framework.

Every request with a ``key`` in its query prints one line when it starts, so that tests can count in the containers'
logs how many times it ran, whichever process ran it. When its client leaves before the end, it prints another.

All pages are below `/catalog` and `/reports`, too: two applications, as far as routes are concerned.
"""

import asyncio
import base64
import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WORKER = os.environ.get("RABBITBAL_WORKER_ID") or socket.gethostname()

# `/work?ms=N` takes so many times N, so that one group of workers can be slower than another.
SLOWNESS = float(os.environ.get("DEMO_SLOWNESS") or 1)
# Below these the pages are the same.
FOLDERS = ("/catalog", "/reports")

BLOCK = bytes(range(256)) * 256  # 64 KiB
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
HTML = "text/html; charset=utf-8"
EVENTS = "text/event-stream"

SUBPROTOCOLS = ("echo", "chat")
REFUSAL = {"type": "websocket.close"}  # before it was accepted: 403

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rabbitbal</title>
<style>
  :root { color-scheme: light dark; --line: light-dark(#ddd, #444); --soft: light-dark(#666, #aaa); }
  body { font: 1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 12vh auto; padding: 0 1.5rem; }
  h1 { font-weight: 600; letter-spacing: -.02em; margin: 0; }
  p { color: var(--soft); margin: .25rem 0 2rem; }
  b, code { font-family: ui-monospace, monospace; font-weight: 400; color: light-dark(#b4450b, #ffa657); }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1.5rem; border-top: 1px solid var(--line); }
  dt, dd { margin: 0; padding: .4rem 0; }
  dd { color: var(--soft); }
  a { color: inherit; }
  button { font: inherit; }
</style>
<h1>Rabbitbal</h1>
<p>This page came through a queue, from worker <b>WORKER</b>. Reload it: perhaps another one is quicker.</p>
<dl>
  <dt><a href="/whoami">/whoami</a><dd>which worker answers
  <dt><a href="/work?ms=500">/work?ms=500</a><dd>holds a slot for so long
  <dt><a href="/catalog/whoami">/catalog/…</a>, <a href="/reports/whoami">/reports/…</a><dd>the same once more
  <dt><a href="/echo?a=1&amp;a=2">/echo</a><dd>the request as the application saw it
  <dt><a href="/bytes/1024">/bytes/1024</a><dd>so many bytes
  <dt><a href="/stream?chunks=5&amp;ms=200">/stream</a><dd>a body in pieces
  <dt><a href="/sse?events=10&amp;ms=500">/sse</a><dd>events, as they happen
  <dt>/ws<dd>a WebSocket that sends back what it gets
  <dt>/digest<dd>POST a body of any size: its length and SHA-256
  <dt><a href="/status/418">/status/418</a><dd>any status
  <dt><a href="/crash">/crash</a><dd>kills the worker that runs it
</dl>
<p><button>Listen to /sse, send it to /ws</button> <output></output></p>
<script>
  document.querySelector("button").onclick = () => {
    const show = text => document.querySelector("output").textContent = text;
    const events = new EventSource("/sse?events=20&ms=250");
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/ws");
    events.onmessage = event => socket.readyState === WebSocket.OPEN && socket.send("event " + event.lastEventId);
    events.onerror = () => { events.close(); socket.close(); };  // its end, too, or the browser would come again
    socket.onmessage = message => show(message.data + ", there and back");
    socket.onclose = () => show("closed");
  };
</script>
</html>
"""


class BadNumber(ValueError):
    """A number that is none, or out of bounds."""


class Gone(Exception):
    """The client left."""


@dataclass
class Visit:
    """One request. ``argument`` is the last part of a path like ``/status/404``."""

    scope: Message
    receive: Receive
    send: Send
    argument: str
    query: dict[str, str]

    async def body(self) -> AsyncIterator[bytes]:
        """Its pieces as they come. Raises Gone: a body without its end is none."""
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Gone
            yield message.get("body", b"")
            more = message.get("more_body", False)

    async def start(self, status: int, content_type: str, length: int | None = None) -> None:
        headers = [(b"content-type", content_type.encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def answer(self, text: str, content_type: str = TEXT, status: int = 200) -> None:
        body = text.encode()
        await self.start(status, content_type, None if status in (204, 304) else len(body))
        await self.send({"type": "http.response.body", "body": body})


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] not in ("http", "websocket"):
        # ASGI: this is how a server learns that there is no lifespan here.
        raise NotImplementedError(scope["type"])
    query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
    path = inner(scope["path"])
    folder, _, argument = path.rpartition("/")
    page = PAGES.get(path) or PAGES.get(folder + "/*", missing)
    key = argument if page is count else query.get("key")
    if key:
        ms = query.get("ms", "")
        say("ran", key, ms=int(ms) if len(ms) < 12 and ms.isdecimal() else 0)
    visit = Visit(scope, receive, send, argument, query)
    try:
        await (chat(visit) if scope["type"] == "websocket" else page(visit))
    except BadNumber as error:
        if scope["type"] == "websocket":
            await send(REFUSAL)
        else:
            await visit.answer(f"{error}\n", status=400)
    except (Gone, OSError, asyncio.CancelledError) as error:
        # However the server tells: by a message, by a send that fails, by a cancelled task.
        if key:
            say("gone", key, at=time.time(), code=error.args[0] if isinstance(error, Gone) and error.args else None)
        if isinstance(error, asyncio.CancelledError):
            raise


def inner(path: str) -> str:
    """The path of the page: `/reports/work` is `/work`, and `/reports` is `/`."""
    for folder in FOLDERS:
        if path == folder or path.startswith(folder + "/"):
            return path[len(folder) :] or "/"
    return path


def say(event: str, key: str, **more: object) -> None:
    # In one write: a worker that is killed leaves no half line behind which the next one begins.
    sys.stdout.write(json.dumps({"event": event, "key": key, **more}) + "\n")
    sys.stdout.flush()


async def chat(visit: Visit) -> None:
    """/ws: sends back what it gets. With ``close=4001`` it closes so after the first message."""
    if inner(visit.scope["path"]) != "/ws":
        await visit.send(REFUSAL)
        return
    code = number(visit.query["close"], 1000, 4999) if "close" in visit.query else None
    await visit.receive()
    chosen = next((name for name in visit.scope["subprotocols"] if name in SUBPROTOCOLS), None)
    await visit.send({"type": "websocket.accept", "subprotocol": chosen})
    while (message := await visit.receive())["type"] == "websocket.receive":
        if code is not None:
            await visit.send({"type": "websocket.close", "code": code, "reason": "as the query asked"})
            return
        await visit.send({**message, "type": "websocket.send"})
    raise Gone(message.get("code"))


async def home(visit: Visit) -> None:
    await visit.answer(PAGE.replace("WORKER", escape(WORKER)), HTML)


async def whoami(visit: Visit) -> None:
    await visit.answer(f"{WORKER}\n")


async def work(visit: Visit) -> None:
    ms = number(visit.query.get("ms", "0"), 0, 600_000)
    await asyncio.sleep(ms / 1000 * SLOWNESS)
    await visit.answer(json.dumps({"worker": WORKER, "ms": ms}), JSON)


async def count(visit: Visit) -> None:
    await visit.answer(json.dumps({"worker": WORKER, "key": visit.argument}), JSON)


async def echo(visit: Visit) -> None:
    body = b"".join([part async for part in visit.body()])
    target = visit.scope["raw_path"] + (b"?" + visit.scope["query_string"] if visit.scope["query_string"] else b"")
    shown: str | dict[str, str]
    try:
        shown = body.decode()
    except UnicodeDecodeError:
        shown = {"base64": base64.b64encode(body).decode()}
    seen = {
        "method": visit.scope["method"],
        "target": target.decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in visit.scope["headers"]],
        "body": shown,
    }
    await visit.answer(json.dumps(seen, indent=2), JSON)


async def some_bytes(visit: Visit) -> None:
    left = number(visit.argument, 0, 1 << 30)
    await visit.start(200, "application/octet-stream", left)
    while left > len(BLOCK):
        await visit.send({"type": "http.response.body", "body": BLOCK, "more_body": True})
        left -= len(BLOCK)
    await visit.send({"type": "http.response.body", "body": BLOCK[:left]})


async def stream(visit: Visit) -> None:
    chunks = number(visit.query.get("chunks", "10"), 0, 10_000)
    ms = number(visit.query.get("ms", "100"), 0, 60_000)
    await visit.start(200, TEXT)
    for chunk in range(1, chunks + 1):
        await asyncio.sleep(ms / 1000)
        await visit.send(
            {"type": "http.response.body", "body": f"chunk {chunk} of {chunks}\n".encode(), "more_body": True}
        )
    await visit.send({"type": "http.response.body"})


async def sse(visit: Visit) -> None:
    """Each event's data is the time at which it was sent, in nanoseconds since 1970."""
    events = number(visit.query.get("events", "10"), 0, 1_000_000)
    ms = number(visit.query.get("ms", "100"), 0, 60_000)
    await visit.start(200, EVENTS)
    watch = asyncio.create_task(left(visit))
    try:
        for event in range(1, events + 1):
            if event > 1:
                await asyncio.wait((watch,), timeout=ms / 1000)
            if watch.done():
                watch.result()
            data = f"id: {event}\ndata: {time.time_ns()}\n\n".encode()
            await visit.send({"type": "http.response.body", "body": data, "more_body": True})
    finally:
        watch.cancel()
    await visit.send({"type": "http.response.body"})


async def left(visit: Visit) -> None:
    """Raises Gone when the client leaves."""
    while True:
        async for _ in visit.body():
            pass


async def digest(visit: Visit) -> None:
    size, digest = 0, hashlib.sha256()
    async for part in visit.body():
        size += len(part)
        digest.update(part)
    await visit.answer(json.dumps({"bytes": size, "sha256": digest.hexdigest()}), JSON)


async def status(visit: Visit) -> None:
    code = number(visit.argument, 200, 599)
    phrase = HTTPStatus(code).phrase if code in list(HTTPStatus) else ""
    await visit.answer("" if code in (204, 304) else f"{code} {phrase}\n", status=code)


async def crash(visit: Visit) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def missing(visit: Visit) -> None:
    await visit.answer("there is no such page\n", status=404)


PAGES: dict[str, Callable[[Visit], Awaitable[None]]] = {
    "/": home,
    "/whoami": whoami,
    "/work": work,
    "/count/*": count,
    "/echo": echo,
    "/bytes/*": some_bytes,
    "/stream": stream,
    "/sse": sse,
    "/digest": digest,
    "/status/*": status,
    "/crash": crash,
}


def number(text: str, least: int, most: int) -> int:
    # int() would take signs, spaces and underscores too.
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise BadNumber(f"{text[:40]!r} is not a number from {least} to {most}")
    return int(text)
