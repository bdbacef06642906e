"""An edge's pending requests with a broker in memory. Use: ``from tests.edge_bench import Bench``."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from rabbitbal.edge.pending import Pending
from rabbitbal.edge.spool import Spool, SpoolSpace
from rabbitbal.edge.ticket import Ending, Order, Ticket
from rabbitbal.edge.upload import Upload
from rabbitbal.runtime.broker import Disconnected, Verdict
from rabbitbal.runtime.streams import Broken
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.message import Request, Response, encode_request, encode_response
from rabbitbal.wire.reasons import Reason

PAYLOAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ORDER = Order(PAYLOAD, "GET", "default", repeatable=True, timeout=20.0, route_grace=20.0, broker_grace=20.0)
ONCE = replace(ORDER, repeatable=False)
OK = Response(200, [(b"Content-Length", b"2")], b"ok")

UNSENT = Disconnected("not connected", sent=False)
CUT = Disconnected("connection lost", sent=True)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.001)


async def turns(number: int = 5) -> None:
    """Let every task that can run do so."""
    for _ in range(number):
        await asyncio.sleep(0)


@dataclass
class Published:
    exchange: str
    key: str
    envelope: Envelope
    body: bytes
    timeout: float


Answer = Verdict | Exception | asyncio.Future[Verdict]


class MemoryBroker:
    """Answers publishes of requests with ``verdicts``, of pieces, credits and probes with those of ``on_streams``, then
    with ROUTED. A future among them is awaited first."""

    def __init__(self) -> None:
        self.verdicts: deque[Answer] = deque()
        self.on_streams: dict[Kind, deque[Answer]] = {Kind.BODY: deque(), Kind.CREDIT: deque(), Kind.PROBE: deque()}
        self.requests: list[Published] = []
        self.notices: list[Published] = []
        self.notices_wait: asyncio.Event | None = None
        self._up = asyncio.Event()
        self._up.set()

    def up(self) -> bool:
        return self._up.is_set()

    async def wait_up(self) -> None:
        await self._up.wait()

    def go_away(self) -> None:
        self._up.clear()

    def come_back(self) -> None:
        self._up.set()

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict:
        message = Published(exchange, key, envelope, body, timeout)
        if exchange != topology.REQUESTS:
            self.notices.append(message)
            if self.notices_wait is not None:
                await self.notices_wait.wait()
            return await self._answer(self.on_streams.get(envelope.kind, deque()))
        self.requests.append(message)
        return await self._answer(self.verdicts)

    async def _answer(self, verdicts: "deque[Answer]") -> Verdict:
        verdict = verdicts.popleft() if verdicts else Verdict.ROUTED
        if isinstance(verdict, asyncio.Future):
            return await verdict
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    def told(self, kind: Kind) -> list[Published]:
        return [notice for notice in self.notices if notice.envelope.kind is kind and notice.exchange != topology.DEAD]


class Bench:
    """One edge's pending requests, and what the test does to them."""

    def __init__(self, max_pending: int = 10, buffer_limit: int = 1000) -> None:
        self.broker = MemoryBroker()
        self.pending = Pending("edge-1", self.broker, max_pending, buffer_limit)
        self.tickets: list[Ticket] = []

    def start(self, order: Order = ORDER) -> "asyncio.Task[Ending]":
        return asyncio.ensure_future(self.pending.run(order, self.tickets.append))

    async def started(self, order: Order = ORDER) -> "asyncio.Task[Ending]":
        """A request whose publish the broker confirmed."""
        before = len(self.broker.requests)
        task = self.start(order)
        await until(lambda: len(self.broker.requests) > before)
        await turns()
        return task

    def reply(
        self, kind: Kind, number: int = -1, *, worker: str = "worker-1", payload: bytes = b"", **more: Any
    ) -> None:
        """What a worker says about the ``number``-th publish."""
        request = self.broker.requests[number].envelope
        attempt = more.pop("attempt", request.attempt)
        self.pending.reply(Envelope(kind, request.correlation_id, worker, attempt=attempt, **more), payload)

    def answer(self, number: int = -1, worker: str = "worker-1", **more: Any) -> None:
        self.reply(Kind.RESPONSE, number, worker=worker, payload=encode_response(OK), **more)

    def pieces(self, worker: str = "worker-1") -> list[tuple[int, int, bytes, bool, Reason | None]]:
        """What the worker was sent of bodies: attempt, sequence, payload, more, reason."""
        return [
            (said.attempt, said.sequence or 0, sent.body, bool(said.more), said.reason)
            for sent in self.broker.told(Kind.BODY)
            if (said := sent.envelope) and (sent.exchange, sent.key) == (topology.STREAMS, worker)
        ]

    def cancels(self) -> list[str]:
        return [sent.key for sent in self.broker.told(Kind.CANCEL)]

    def cancelled(self) -> list[tuple[str, int]]:
        """Workers and attempts."""
        return [(sent.key, sent.envelope.attempt) for sent in self.broker.told(Kind.CANCEL)]

    def assert_forgotten(self) -> None:
        """Nothing of any request is in memory."""
        assert len(self.pending) == 0
        assert (self.pending._bytes, self.pending._tickets, self.pending.prober._watches) == (0, {}, {})
        tasks = [task for ticket in self.tickets for task in (ticket.sender, ticket.pump, ticket.granting)]
        assert all(task is None or task.done() for task in tasks)


async def ended(task: "asyncio.Task[Ending]") -> Ending:
    ending = await asyncio.wait_for(task, 5)
    await turns()
    return ending


HEAD = Response(200, [(b"Content-Type", b"text/plain")], b"first")


class Streams(Bench):
    """A bench with memory for wide windows."""

    def __init__(self, buffer_limit: int = 1 << 20) -> None:
        super().__init__(buffer_limit=buffer_limit)

    def head(self, number: int = -1, *, response: Response = HEAD, worker: str = "worker-1", **more: Any) -> None:
        payload = encode_response(response, more=True)
        self.reply(Kind.RESPONSE, number, worker=worker, payload=payload, more=True, **more)

    def piece(self, sequence: int, body: bytes, *, more: bool = True, **other: Any) -> None:
        self.reply(Kind.BODY, payload=body, sequence=sequence, more=more, **other)

    async def streaming(self, order: Order = ORDER) -> Ending:
        task = await self.started(order)
        self.head()
        return await ended(task)

    def credits(self) -> list[int | None]:
        return [sent.envelope.credit for sent in self.broker.told(Kind.CREDIT) if sent.key == "worker-1"]


async def read(ending: Ending) -> bytes:
    assert ending.stream is not None
    return await asyncio.wait_for(ending.stream.read(), 5)


async def broken(ending: Ending) -> Reason | None:
    with pytest.raises(Broken) as error:
        await read(ending)
    return error.value.reason


class Client:
    """Sends a body as uvicorn tells of one."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.asked = 0

    def send(self, body: bytes, *, more: bool = True) -> None:
        self._events.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self._events.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        return await self._events.get()


async def uploaded(
    client: Client, space: SpoolSpace | None = None, *, once: bool = False, limit: int = 1 << 30, timeout: float = 20.0
) -> Order:
    """An order whose body goes on; its first bytes are ``first``. It is kept in ``space`` if there is one."""
    client.send(b"first")
    upload = Upload(client.receive, 1 << 20, limit)
    body, more = await upload.begin(lambda size: None)
    assert (body, more) == (b"first", True)
    if space is not None:
        upload.keep(Spool(space))
    fields = [(b"Host", b"a"), (b"Content-Length", b"1048576")]
    payload = encode_request(Request("PUT", b"/", fields, body), more=True)
    return replace(ORDER, payload=payload, method="PUT", repeatable=not once, timeout=timeout, source=upload)
