"""The page's server: a real one on a free port, its feed, its files, and whom it answers."""

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from rabbitbal.tap import feed as feed_
from rabbitbal.tap import page, web
from rabbitbal.tap.dashboard import Dashboard
from rabbitbal.tap.guard import HEADERS
from rabbitbal.tap.observation import Observation
from rabbitbal.tap.panels import Panels, Provider
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.message import Request

PATIENCE = 10.0


class Served:
    """The page's own parts behind a server."""

    def __init__(self, providers: dict[str, tuple[Provider, float]]) -> None:
        self.dashboard = Dashboard("tap-1", 1000, providers, lambda: {"connected": True})
        self.server = web.Server(web.build(self.dashboard.routers(), ["tap.example"]), "127.0.0.1", 0)
        self.address = ""

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[httpx.AsyncClient]:
        serving = asyncio.create_task(self.server.serve())
        deadline = time.monotonic() + PATIENCE
        while not self.server.started:
            assert time.monotonic() < deadline, "the server does not start"
            await asyncio.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=self.address, timeout=PATIENCE) as client:
            yield client
        self.dashboard.close()
        self.server.should_exit = True
        await serving

    def request(self, name: str) -> None:
        """One that was answered just now."""
        now = time.time()
        began = Envelope(Kind.REQUEST, name, "edge-1", reply_to="response.edge-1", sent=int(now * 1000))
        ended = Envelope(Kind.RESPONSE, name, "worker-1", sent=int(now * 1000))
        line = {"id": name, "status": 200, "reason": None, "attempt": 1, "route": "default", "pool": "default"}
        target = {"method": "GET", "target": "/", "total_ms": 12, "queue_ms": 2, "app_ms": 10}
        for seen in (
            Observation(now, began, b"", request=Request("GET", b"/", [], b"")),
            Observation(now, ended, b"", line=line | target),
        ):
            for part in self.dashboard.parts:
                part.see(seen)


@pytest.fixture
async def served() -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    it = Served({})
    async with it.up() as client:
        yield it, client


async def looked_at(client: httpx.AsyncClient, viewers: int) -> None:
    """Wait until so many look."""
    deadline = time.monotonic() + PATIENCE
    while (told := (await client.get("/api/live")).json()["viewers"]) != viewers:
        assert time.monotonic() < deadline, f"{told} look"
        await asyncio.sleep(0.05)


async def events(response: httpx.Response) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    """As they come, each with its name."""
    name = ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


async def test_a_viewer_gets_the_history_and_then_what_happens(served: tuple[Served, httpx.AsyncClient]) -> None:
    """Each request once, with how many there were."""
    it, client = served
    it.request("before")
    async with client.stream("GET", "/api/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        told = events(response)
        name, snapshot = await anext(told)
        assert (name, [row["id"] for row in snapshot["newest"]["rows"]]) == ("history", ["before"])
        for number in range(50):
            it.request(f"id{number}")
        while (newest := snapshot["newest"])["of"] != 50:
            name, snapshot = await asyncio.wait_for(anext(told), PATIENCE)
        assert name == "tick"
        assert (len(newest["rows"]), newest["shown"], newest["rows"][0]["id"]) == (20, 20, "id49")
        assert snapshot["requests"] == 51
        name, snapshot = await anext(told)
        assert (name, snapshot["newest"]) == ("tick", {"rows": [], "shown": 0, "of": 0})


async def test_who_comes_later_sees_what_was_before(served: tuple[Served, httpx.AsyncClient]) -> None:
    """Although somebody looks already, to whom it was shown."""
    it, client = served
    async with client.stream("GET", "/api/events") as sooner:
        told = events(sooner)
        it.request("before")
        for _ in range(3):
            await anext(told)
        async with client.stream("GET", "/api/events") as later:
            _, snapshot = await anext(events(later))
    assert [row["id"] for row in snapshot["newest"]["rows"]] == ["before"]


async def test_all_viewers_share_one_snapshot(served: tuple[Served, httpx.AsyncClient]) -> None:
    """What is asked for within half a second is made once."""
    _, client = served
    told = await asyncio.gather(*(client.get("/api/live") for _ in range(10)))
    assert len({answer.json()["at"] for answer in told}) <= 2


async def test_there_are_so_many_viewers_and_no_more(
    served: tuple[Served, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next hears it, and one that leaves makes room."""
    monkeypatch.setattr(feed_, "MOST_VIEWERS", 2)
    _, client = served

    async def look() -> int:
        async with client.stream("GET", "/api/events") as response:
            return response.status_code

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(client.stream("GET", "/api/events"))
        await looked_at(client, 2)
        refused = await asyncio.wait_for(client.get("/api/events"), PATIENCE)
        assert (refused.status_code, "try again" in refused.json()["detail"]) == (503, True)
    await looked_at(client, 0)
    assert await look() == 200


async def test_a_viewer_that_does_not_read_is_not_buffered_for(served: tuple[Served, httpx.AsyncClient]) -> None:
    """Others get every snapshot meanwhile, and the server holds no more than a socket's buffers for it."""
    it, client = served
    host, port = it.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        lazy.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with client.stream("GET", "/api/events") as response:
            stream = events(response)
            told = [await asyncio.wait_for(anext(stream), PATIENCE) for _ in range(5)]
    assert [name for name, _ in told] == ["history", "tick", "tick", "tick", "tick"]
    gaps = [later[1]["at"] - sooner[1]["at"] for sooner, later in pairwise(told)]
    assert max(gaps) < 2000


async def test_the_server_stops_although_somebody_looks() -> None:
    """Viewers are let go, with the end of their stream."""
    it = Served({})
    async with it.up() as client, client.stream("GET", "/api/events") as response:
        await looked_at(client, 1)
        it.dashboard.close()
        body = await asyncio.wait_for(response.aread(), PATIENCE)
    assert body.startswith(b"retry: 1000")


async def test_a_panel_is_told_when_it_comes_and_never_waited_for() -> None:
    """One that fails or hangs takes nothing from the others."""

    async def hanging() -> Any:
        await asyncio.Event().wait()

    def failing() -> Any:
        raise OSError("the database is away")

    panels = Panels({"good": (lambda: {"a": 1}, 0.0), "hanging": (hanging, 0.0), "failing": (failing, 0.0)})
    assert panels.values() == {}
    deadline = time.monotonic() + PATIENCE
    while len(told := panels.values()) < 2:
        assert time.monotonic() < deadline, "no panel is told"
        await asyncio.sleep(0.01)
    assert told == {"good": {"a": 1}, "failing": {"error": "not available now"}}
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:8081", "[::1]:8081", "dashboard:8081", "TAP.example", "localhost."]
)
async def test_it_answers_to_its_own_names(served: tuple[Served, httpx.AsyncClient], host: str) -> None:
    """And to those that the operator has added."""
    assert (await served[1].get("/", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:8081", "127.0.0.1@evil", "a b", ""]
)
async def test_it_answers_to_no_other_name(served: tuple[Served, httpx.AsyncClient], host: str) -> None:
    """A foreign name that leads to this machine shows no client's requests to a foreign page."""
    answer = await served[1].get("/api/live", headers={"Host": host})
    assert answer.status_code == 421
    assert "RABBITBAL_DASHBOARD_HOSTS" in answer.text


async def test_another_sites_page_may_not_ask(served: tuple[Served, httpx.AsyncClient]) -> None:
    """A link to the page may lead here; a script elsewhere may not fill the viewers' places."""
    site = {"Sec-Fetch-Site": "cross-site"}
    assert (await served[1].get("/api/events", headers=site | {"Sec-Fetch-Mode": "cors"})).status_code == 403
    assert (await served[1].get("/", headers=site | {"Sec-Fetch-Mode": "navigate"})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/api/live", "/nothing", "/api/requests/none"])
async def test_every_answer_says_what_a_browser_may_do(served: tuple[Served, httpx.AsyncClient], path: str) -> None:
    """Refusals, too."""
    answer = await served[1].get(path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


async def test_files_are_not_sent_anew(served: tuple[Served, httpx.AsyncClient]) -> None:
    """The browser asks each time, and hears that nothing has changed."""
    first = await served[1].get("/static/style.css")
    again = await served[1].get("/static/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert (await served[1].get("/static/..%2Fpage.py")).status_code == 404


async def test_no_page_of_the_framework_loads_foreign_scripts(served: tuple[Served, httpx.AsyncClient]) -> None:
    """Its page of documentation is off; the description is there."""
    assert [(await served[1].get(path)).status_code for path in ("/docs", "/redoc", "/api/openapi.json")] == [
        404,
        404,
        200,
    ]


@pytest.mark.parametrize("file", sorted(page.STATIC.iterdir()), ids=lambda file: file.name)
def test_the_pages_files_have_no_way_for_markup_or_foreign_hosts(file: Path) -> None:
    """Text from requests becomes text: what turns it into markup is not there, and nothing is loaded from elsewhere."""
    text = file.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg|127\.0\.0\.1|\$\{location)", text)
    assert not re.search(r"\son\w+=\"|<script(?![^>]*\ssrc=)|<style|\sstyle=\"", text)
