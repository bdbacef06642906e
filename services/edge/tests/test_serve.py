"""The edge as a service, with a broker that is never there: it starts, it answers, it leaves when it is told."""

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import uvloop

from rabbitbal.edge import serve as module
from rabbitbal.edge.serve import serve
from rabbitbal.edge.settings import Settings
from rabbitbal.runtime.lifecycle import Stop

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


async def is_listening(settings: Settings) -> None:
    await pending(settings)
