"""The edge as a service, with a broker that is never there: it starts, it answers, it leaves when it is told."""

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs

from rabbitbal.edge import serve as module
from rabbitbal.edge.broker import EdgeBroker
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.serve import serve
from rabbitbal.edge.settings import Settings
from rabbitbal.routes import watch
from rabbitbal.routes.document import load
from rabbitbal.routes.table import BUILT_IN
from rabbitbal.runtime.lifecycle import Stop
from tests.edge_deployment import replace_file

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAREWELL", 0.01)
    monkeypatch.setattr("rabbitbal.runtime.logs.configure", lambda *_: None)


@pytest.fixture
def settings() -> Settings:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, nobody = one.getsockname()[1], other.getsockname()[1]
    return Settings(host="127.0.0.1", port=port, broker_url=f"amqp://edge@127.0.0.1:{nobody}/", broker_grace=0.05)


async def connected(settings: Settings) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    deadline = time.monotonic() + 5
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", settings.port)
        except OSError:
            assert time.monotonic() < deadline, "nobody listens"
            await asyncio.sleep(0.01)


async def pending(settings: Settings) -> int:
    reader, writer = await connected(settings)
    writer.write(b"GET /_rabbitbal/stats HTTP/1.0\r\nHost: a\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return int(answer.partition(b'"pending":')[2].partition(b",")[0])


async def is_pending(settings: Settings) -> None:
    deadline = time.monotonic() + 5
    while await pending(settings) == 0:
        assert time.monotonic() < deadline, "the request is not pending"


async def test_without_a_broker_a_request_ends_with_broker_down(settings: Settings) -> None:
    """503 after the grace, and the edge says that it is not ready."""
    stop = Stop()
    serving = asyncio.ensure_future(serve(settings, stop))
    reader, writer = await connected(settings)
    writer.write(GET)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"rabbitbal-error: broker-down" in head
    stop()
    await asyncio.wait_for(serving, 5)
    writer.close()


async def test_a_request_in_flight_is_answered_before_the_edge_leaves(settings: Settings) -> None:
    """It was accepted; only then the listener's connections end."""
    settings = replace(settings, broker_grace=0.5)
    stop = Stop()
    serving = asyncio.ensure_future(serve(settings, stop))
    reader, writer = await connected(settings)
    writer.write(GET)
    await is_pending(settings)
    stop()
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"connection: close" in answer
    await asyncio.wait_for(serving, 5)
    writer.close()


def test_an_edge_that_is_told_twice_leaves_at_once(settings: Settings) -> None:
    """Whatever is in flight; on the event loop that the service runs on."""

    async def scenario() -> None:
        stop = Stop()
        serving = asyncio.ensure_future(serve(replace(settings, broker_grace=60.0, timeout=60.0), stop))
        _, writer = await connected(settings)
        writer.write(GET)
        await is_pending(settings)
        stop()
        stop()
        await asyncio.wait_for(serving, 5)
        writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


async def test_an_idle_connection_does_not_hold_the_edge(settings: Settings) -> None:
    """Clients keep theirs open for long."""
    stop = Stop()
    serving = asyncio.ensure_future(serve(settings, stop))
    reader, writer = await connected(settings)
    await is_listening(settings)
    stop()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    await asyncio.wait_for(serving, 5)
    writer.close()


async def test_a_running_edge_takes_a_new_table(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It watches its file, and says in its log which one it has."""
    monkeypatch.setattr(watch, "PERIOD", 0.01)
    path = tmp_path / "routes.yaml"
    path.write_text("version: 1\nroutes: [{ name: before }]\n")
    settings = replace(settings, routes=path, expose_worker=True)
    stop = Stop()
    with capture_logs() as lines:
        serving = asyncio.ensure_future(serve(settings, stop))
        assert b"\r\nrabbitbal-route: before\r\n" in await ask(settings)
        replace_file(path, "version: 1\nroutes: [{ name: after }]\n")
        await until(lambda: len([line for line in lines if line["event"] == "routes.loaded"]) == 2)
        assert b"\r\nrabbitbal-route: after\r\n" in await ask(settings)
        replace_file(path, "version: 1\nroutes: []\n")
        await until(lambda: [line for line in lines if line["event"] == "routes.refused"])
        assert b"\r\nrabbitbal-route: after\r\n" in await ask(settings)
        stop()
        await asyncio.wait_for(serving, 5)
    (refused,) = (line for line in lines if line["event"] == "routes.refused")
    assert str(refused["error"]).startswith(f"{path}:2:")


async def test_the_tap_hears_of_the_first_table(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read before there is a connection to the broker."""
    notices: list[dict[str, object]] = []

    async def wait_up(broker: EdgeBroker) -> None:
        """The broker is there at once."""

    monkeypatch.setattr(EdgeBroker, "wait_up", wait_up)
    monkeypatch.setattr(Pending, "notice", lambda pending, payload: notices.append(payload))
    path = tmp_path / "routes.yaml"
    path.write_text("version: 1\nroutes: [{ name: default }]\n")
    stop = Stop()
    serving = asyncio.ensure_future(serve(replace(settings, routes=path), stop))
    await until(lambda: notices)
    assert [notice["event"] for notice in notices] == ["routes.loaded"]
    stop()
    await asyncio.wait_for(serving, 5)


def test_a_stop_waits_for_the_route_that_may_take_longest() -> None:
    """Its requests were accepted, too."""
    table = load(b"version: 1\nroutes: [{name: slow, match: {path: /slow}, timeout: 90s}, {name: default}]\n", "x")
    assert module._longest(Settings(timeout=30.0), table) == 90.0
    assert module._longest(Settings(timeout=120.0), table) == 120.0
    assert module._longest(Settings(timeout=30.0), BUILT_IN) == 30.0


async def ask(settings: Settings) -> bytes:
    reader, writer = await connected(settings)
    writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def is_listening(settings: Settings) -> None:
    await pending(settings)
