"""A runner with its surroundings: the broker is in memory; a delivery is a real one around a message that counts."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import cast

from aio_pika.abc import AbstractIncomingMessage

from rabbitbal.runtime.broker import Delivery, Disconnected, Verdict
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.flow import WINDOW
from rabbitbal.wire.message import Request, Response, encode_request
from rabbitbal.wire.reasons import Reason
from rabbitbal.worker.runner import Runner
from rabbitbal.worker.slots import Turn
from rabbitbal.worker.targets.contract import Answer, Body
from tests.harness import until

PAYLOAD = encode_request(Request("GET", b"/", [(b"Host", b"a")]))
CUT = Disconnected("connection lost", sent=True)
NEVER_SENT = Disconnected("not connected", sent=False)
EDGE = "edge-1"
NAME = "c0ffee"
ATTEMPT = 2


class MemoryBroker:
    """Answers publishes with ``verdicts``, then with ROUTED; keeps what was published. ``held`` kinds wait."""

    def __init__(self) -> None:
        self.verdicts: deque[Verdict | Disconnected] = deque()
        self.by_kind: dict[Kind, deque[Verdict | Disconnected]] = {}
        self.held: dict[Kind, asyncio.Event] = {}
        # Long before any request of a test.
        self.since = -10.0
        self.tried = 0
        self.sent: list[tuple[str, str, Envelope, bytes]] = []
        self.up = asyncio.Event()
        self.up.set()

    async def wait_up(self) -> None:
        await self.up.wait()

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict:
        self.tried += 1
        if (hold := self.held.get(envelope.kind)) is not None:
            await hold.wait()
        verdicts = self.by_kind.get(envelope.kind) or self.verdicts
        verdict = verdicts.popleft() if verdicts else Verdict.ROUTED
        if isinstance(verdict, Disconnected):
            raise verdict
        if verdict is Verdict.ROUTED:
            self.sent.append((exchange, key, envelope, body))
        return verdict

    def kinds(self) -> list[Kind]:
        return [envelope.kind for _, _, envelope, _ in self.sent]

    def of(self, kind: Kind) -> list[tuple[Envelope, bytes]]:
        return [(envelope, body) for _, _, envelope, body in self.sent if envelope.kind is kind]

    def stream(self) -> tuple[bytes, list[int | None], bool, Reason | None]:
        """Of the `body` messages: their payloads, their numbers, whether the last one came, and its reason."""
        pieces = self.of(Kind.BODY)
        last = pieces[-1][0] if pieces else None
        return (
            b"".join(body for _, body in pieces),
            [envelope.sequence for envelope, _ in pieces],
            last is not None and last.more is False,
            last.reason if last is not None else None,
        )


class Message:
    """Stands for what the client library delivers; ``settled`` tells every ack and nack that reached it."""

    def __init__(self, redelivered: bool, envelope: Envelope, body: bytes) -> None:
        self.body = body
        self.redelivered = redelivered
        self.type: str | None = envelope.kind.value
        self.correlation_id = envelope.correlation_id
        self.app_id = envelope.app_id
        self.reply_to = envelope.reply_to
        self.headers = envelope.headers()
        self.user_id: str | None = None
        self.routing_key: str | None = "request.default"
        self.settled: list[str] = []
        self.channel_gone = False
        self.hold: asyncio.Event | None = None

    async def ack(self) -> None:
        await self._settle("ack")

    async def nack(self, requeue: bool = True) -> None:
        await self._settle("requeue" if requeue else "drop")

    async def _settle(self, how: str) -> None:
        if self.channel_gone:
            raise RuntimeError("channel closed")
        if self.hold is not None:
            await self.hold.wait()
        self.settled.append(how)


class Call:
    """One request in the application. The test answers through ``answer``, or lets the application do it at its end."""

    def __init__(self, request: Request, body: Body, answer: Answer) -> None:
        self.request = request
        self.body = body
        self.answer = answer
        self.result: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()

    async def stream(self, *chunks: bytes) -> None:
        await self.answer.start(200, [])
        for chunk in chunks:
            await self.answer.write(chunk)

    async def stream_more(self, chunk: bytes) -> None:
        """Until the client has taken it."""
        await self.answer.write(chunk)
        await self.answer.write(b"end")

    def end(self) -> None:
        """The application returns."""
        self.result.set_result(None)


class Application:
    """A target whose requests end when the test says so. ``through`` is when one that is cancelled has cleaned up."""

    detachable = True

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.cancelled = 0
        self.running = 0
        self.most = 0
        self.through = asyncio.Event()
        self.through.set()

    async def start(self) -> None: ...

    def drain(self) -> None: ...

    async def stop(self) -> None: ...

    async def __call__(self, request: Request, body: Body, answer: Answer) -> None:
        call = Call(request, body, answer)
        self.calls.append(call)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            response = await call.result
            if response is not None:
                await answer.start(response.status, response.fields)
                await answer.write(response.body)
            if not answer.finished:
                await answer.finish()
        except asyncio.CancelledError:
            self.cancelled += 1
            await self.through.wait()
            raise
        finally:
            self.running -= 1

    def finish(self, number: int = -1, body: bytes = b"done") -> None:
        self.calls[number].result.set_result(Response(200, [], body))


class Bench:
    """A runner with its surroundings."""

    def __init__(self, claim_after: float = 5.0, streams: int = 8) -> None:
        self.broker = MemoryBroker()
        self.app = Application()
        self.runner = Runner("worker-1", self.broker, self.app, claim_after=claim_after, streams=streams)
        self.messages: list[Message] = []

    def deliver(
        self,
        *,
        redelivered: bool = False,
        timeout: float = 20.0,
        body: bytes = PAYLOAD,
        name: str = NAME,
        edge: str = EDGE,
        attempt: int = ATTEMPT,
        sent: float | None = None,
        more: bool | None = None,
        upgrade: str | None = None,
        credit: int = WINDOW,
        leg: Leg | None = None,
        partition: str | None = None,
        turn: Turn | None = None,
    ) -> "asyncio.Task[None]":
        now = time.time()
        envelope = Envelope(
            Kind.REQUEST,
            name,
            edge,
            reply_to=f"response.{edge}",
            attempt=attempt,
            deadline=int((now + timeout) * 1000),
            repeatable=False,
            route="default",
            traceparent="00-aa-bb-01",
            sent=int((now if sent is None else sent) * 1000),
            more=more,
            upgrade=upgrade,
            credit=credit,
            leg=leg,
            group=None if leg is None else "f00d",
            partition=partition,
        )
        return self.hand_over(Message(redelivered, envelope, body), turn)

    def hand_over(self, message: Message, turn: Turn | None = None) -> "asyncio.Task[None]":
        self.messages.append(message)
        delivery = Delivery(cast(AbstractIncomingMessage, message))
        work: Awaitable[None] = self.runner.handle(delivery, "default", turn)
        return asyncio.ensure_future(work)

    def tell(self, kind: Kind, payload: bytes = b"", *, name: str = NAME, edge: str = EDGE, **headers: object) -> None:
        """The edge says something to this worker."""
        envelope = replace(Envelope(kind, name, edge, attempt=ATTEMPT), **headers)  # type: ignore[arg-type]
        self.runner.told(envelope, payload)

    async def running(self, number: int = 1) -> Call:
        await until(lambda: len(self.app.calls) == number)
        return self.app.calls[-1]

    async def streaming(self, *chunks: bytes, **options: object) -> "tuple[asyncio.Task[None], Call]":
        """A request whose application has begun to stream; the head and the chunks are out."""
        number = len(self.app.calls) + 1
        task = self.deliver(**options)  # type: ignore[arg-type]
        call = await self.running(number)
        heads, size = len(self.broker.of(Kind.RESPONSE)), len(self.broker.stream()[0])
        await call.stream()
        await until(lambda: len(self.broker.of(Kind.RESPONSE)) > heads)
        for chunk in chunks:
            size += len(chunk)
            await call.answer.write(chunk)
            await until(lambda size=size: len(self.broker.stream()[0]) == size)  # type: ignore[misc]
        return task, call

    def settled(self, number: int = -1) -> list[str]:
        return self.messages[number].settled

    def left_over(self) -> list[object]:
        """Whatever of ended requests is still held. Nothing."""
        means = self.runner._means
        prober = means.prober
        held = [self.runner._runs, means.detached, means.chores, prober._watches, prober._returned]
        return [what for what in held if what]


async def done(task: "asyncio.Task[None]") -> None:
    """`handle` never raises and is never found cancelled."""
    # Not wait_for: it would cancel the task, which ends as quietly then.
    finished, _ = await asyncio.wait({task}, timeout=5)
    assert finished, "it goes on"
    task.result()


async def still(condition: Callable[[], object], seconds: float = 0.02) -> bool:
    """Whether the condition holds now and for a little while: enough for what is due at the loop's next turns."""
    deadline = time.monotonic() + seconds
    for _ in range(1000):
        await asyncio.sleep(seconds / 20)
        if not condition() or time.monotonic() >= deadline:
            break
    return bool(condition())
