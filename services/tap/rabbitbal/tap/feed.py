"""The page's feed: a snapshot every half second, made once for all who look, and only while somebody does.

A viewer that reads slowly is not buffered for: what was made while it read is skipped, and when it has missed much it
gets the whole history again.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from rabbitbal.tap.live import RECENT, SECONDS, Live
from rabbitbal.tap.panels import Panels
from rabbitbal.tap.stories import Stories

PERIOD = 0.5
MOST_VIEWERS = 32
MOST_ROWS = 20
MOST_AT_FIRST = 60
"""Requests for one that begins to look: as many as the page shows."""
# Snapshots that a viewer may miss and still have each second's figures.
_MAY_MISS = int((RECENT - 2) / PERIOD)
# Seconds for one snapshot to leave. Who does not read for so long has gone without saying so.
_PATIENCE = 30.0
# Milliseconds after which a browser comes again.
_RETRY = 1000


class Feed:
    """``state`` tells what else belongs on the page's first line: the reader's own figures."""

    def __init__(
        self, tap_id: str, live: Live, stories: Stories, panels: Panels, state: Callable[[], dict[str, Any]]
    ) -> None:
        self._tap_id = tap_id
        self._live = live
        self._stories = stories
        self._panels = panels
        self._state = state
        self._since = time.time()
        self._made = -1
        self._shown = 0
        self._tick: dict[str, Any] = {}
        self._event = b""
        self._history = b""
        self.viewers = 0
        self.closed = False
        """The tap stops: viewers are let go."""

    def number(self) -> int:
        """Of the snapshot that is due."""
        return int(time.monotonic() / PERIOD)

    def tick(self) -> bytes:
        """The newest snapshot, as an event."""
        self._make()
        return self._event

    def history(self) -> bytes:
        """The same with each second and the newest requests that are remembered, for one that begins to look."""
        self._make()
        if not self._history:
            self._history = _event("history", self._made, self.snapshot())
        return self._history

    def snapshot(self) -> dict[str, Any]:
        self._make()
        now = self._tick["at"] // 1000
        # Of the time before its start the tap knows nothing, which is not the same as no requests.
        first = max(now - SECONDS + 1, int(self._since))
        rows, _ = self._stories.since(0, MOST_AT_FIRST)
        newest = {"rows": rows, "shown": len(rows), "of": len(rows)}
        return self._tick | {"series": self._live.series(first, now), "newest": newest}

    def _make(self) -> None:
        number = self.number()
        if number == self._made:
            return
        if not self._made <= number <= self._made + _MAY_MISS:
            # Nobody has looked for a while: what has ended since then was not sampled, it was not shown.
            self._shown = max(0, self._stories.ended - MOST_ROWS)
        now = time.time()
        rows, ended = self._stories.since(self._shown, MOST_ROWS)
        self._shown = self._stories.ended
        self._tick = {
            "tap": self._tap_id,
            "since": int(self._since * 1000),
            "at": int(now * 1000),
            "period_ms": int(PERIOD * 1000),
            "lag": round(self._live.lag(now), 2),
            "requests": self._live.requests,
            "unmatched": self._live.unmatched,
            "remembered": len(self._stories),
            "recent": self._live.recent(now),
            "series": self._live.series(max(int(now) - RECENT, int(self._since)), int(now)),
            "endings": self._live.endings(now),
            "newest": {"rows": rows, "shown": len(rows), "of": ended},
            "viewers": self.viewers,
            "panels": self._panels.values(),
            **self._state(),
        }
        self._made = number
        self._event = _event("tick", number, self._tick)
        self._history = b""


def _event(name: str, number: int, value: dict[str, Any]) -> bytes:
    # JSON has no line ends of its own, so a snapshot is one line of data.
    return f"event: {name}\nid: {number}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


class Viewing(Response):
    """One viewer's stream, until it leaves or the tap stops."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        feed = self._feed
        feed.viewers += 1
        gone = asyncio.create_task(_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._piece(send, f"retry: {_RETRY}\n\n".encode())
            seen = -1
            while not gone.done() and not feed.closed:
                number = feed.number()
                missed = number - seen - 1
                await self._piece(send, feed.tick() if seen >= 0 and missed <= _MAY_MISS else feed.history())
                seen = number
                due = (number + 1) * PERIOD - time.monotonic()
                await asyncio.wait({gone}, timeout=max(due, 0) + 0.001)
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            # Ends the connection: a response without its end is no answer that anybody could take for whole.
            return
        finally:
            feed.viewers -= 1
            gone.cancel()

    @staticmethod
    async def _piece(send: Send, body: bytes) -> None:
        async with asyncio.timeout(_PATIENCE):
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def router(feed: Feed) -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/live")
    async def live() -> JSONResponse:
        """What the page shows, with each second of the last five minutes."""
        return JSONResponse(feed.snapshot(), headers={"Cache-Control": "no-store"})

    @routes.get("/api/events")
    async def events() -> Response:
        """The same as server-sent events: `history` at first, then `tick` every half second."""
        if feed.viewers >= MOST_VIEWERS:
            return JSONResponse(
                {"detail": f"{MOST_VIEWERS} viewers look already; try again later"}, 503, {"Retry-After": "10"}
            )
        return Viewing(feed)

    return routes
