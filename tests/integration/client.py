"""HTTP/1.1 clients of the tests: one request, a volley, or an open-loop load that goes on while the test breaks things.

On raw asyncio streams: a request can be as strange as a test wants it, and the load leaves the two cores to the
deployment.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

Address = tuple[str, int]
Fields = list[tuple[str, str]]

READ_LIMIT = 1024 * 1024
MOST_IN_FLIGHT = 4000
BODILESS = (204, 304)


@dataclass(frozen=True)
class Call:
    """A request to be made. ``key`` is how the test finds it again."""

    target: str
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    key: str = ""

    def encode(self, address: Address) -> bytes:
        names = {name.lower() for name, _ in self.fields}
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        if "host" not in names:
            lines.append(f"Host: {address[0]}:{address[1]}")
        lines += [f"{name}: {value}" for name, value in self.fields]
        if (self.body or self.method in ("POST", "PUT", "PATCH")) and not names & {
            "content-length",
            "transfer-encoding",
        }:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


@dataclass(frozen=True)
class Answer:
    """A response, or with status 0 the ``failure`` that came instead. ``seconds`` is the time until its last byte."""

    call: Call
    status: int
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    seconds: float = 0.0
    ended_at: float = 0.0
    failure: str = ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def first(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    @property
    def reason(self) -> str | None:
        return self.first("Rabbitbal-Error")

    @property
    def worker(self) -> str | None:
        return self.first("Rabbitbal-Worker")

    @property
    def attempt(self) -> str | None:
        return self.first("Rabbitbal-Attempt")

    @property
    def ending(self) -> str:
        """What the client heard, in a word or two: for counting."""
        return self.failure or f"{self.status} {self.reason or ''}".strip()

    def __str__(self) -> str:
        return (
            f"{self.call.method} {self.call.target} -> {self.ending} "
            f"(worker {self.worker}, attempt {self.attempt}, {self.seconds:.2f} s)"
        )


class Client:
    """Connections to one address, kept alive and used again. Never repeats a request."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, call: Call, timeout: float) -> Answer:
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                status, fields, body = await self._exchange(call)
        except TimeoutError:
            answer = Answer(call, 0, failure="no answer in time")
        except (OSError, EOFError, ValueError) as error:
            answer = Answer(call, 0, failure=f"connection lost: {error or type(error).__name__}")
        else:
            answer = Answer(call, status, fields, body)
        return Answer(
            call, answer.status, answer.fields, answer.body, time.monotonic() - started, time.time(), answer.failure
        )

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _exchange(self, call: Call) -> tuple[int, Fields, bytes]:
        reader, writer = await self._connection()
        reusable = False
        try:
            writer.write(call.encode(self._address))
            await writer.drain()
            status, fields, body, reusable = await _response(reader, call.method)
        finally:
            if reusable:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return status, fields, body

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._address, limit=READ_LIMIT)


async def _response(reader: asyncio.StreamReader, method: str) -> tuple[int, Fields, bytes, bool]:
    """Status, fields, body, and whether the connection can be used again."""
    status = 100
    while 100 <= status < 200:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
    fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in head[1:] if line)]
    given = {name.lower(): value for name, value in fields}
    reusable = given.get("connection", "").lower() != "close"
    if method == "HEAD" or status in BODILESS:
        return status, fields, b"", reusable
    if given.get("transfer-encoding", "").lower() == "chunked":
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readline()
        return status, fields, b"".join(parts), reusable
    if "content-length" in given:
        return status, fields, await reader.readexactly(int(given["content-length"])), reusable
    return status, fields, await reader.read(), False


def send(address: Address, call: Call, timeout: float = 90.0) -> Answer:
    """One request on a connection of its own."""

    async def run() -> Answer:
        client = Client(address)
        try:
            return await client.send(call, timeout)
        finally:
            client.close()

    return asyncio.run(run())


def get(address: Address, target: str, timeout: float = 90.0) -> Answer:
    return send(address, Call(target), timeout)


def volley(address: Address, calls: Iterable[Call], at_once: int, timeout: float = 90.0) -> list[Answer]:
    """All the calls, at most so many at once; the answers in the calls' order."""

    async def run() -> list[Answer]:
        client = Client(address)
        gate = asyncio.Semaphore(at_once)

        async def one(call: Call) -> Answer:
            async with gate:
                return await client.send(call, timeout)

        try:
            return await asyncio.gather(*(one(call) for call in calls))
        finally:
            client.close()

    return asyncio.run(run())


def raw(address: Address, message: bytes, until: bytes | None = None, timeout: float = 10.0) -> bytes:
    """Everything that comes back for these bytes until the other end closes, or up to a part with ``until`` in it."""
    parts: list[bytes] = []
    with socket.create_connection(address, timeout=timeout) as connection:
        # What is refused early is answered before it was sent whole; the rest of it then meets a closed connection.
        with contextlib.suppress(ConnectionError):
            connection.sendall(message)
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
                if until is not None and until in part:
                    break
    return b"".join(parts)


class Background:
    """Calls under way in a thread while the test does something else. The answers come in the calls' order."""

    def __init__(self, address: Address, *calls: Call, timeout: float = 90.0) -> None:
        self._answers: list[Answer] = []

        def run() -> None:
            self._answers = volley(address, calls, max(len(calls), 1), timeout)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def answers(self) -> list[Answer]:
        self._thread.join()
        return self._answers

    def answer(self) -> Answer:
        (answer,) = self.answers()
        return answer


class Load:
    """An open-loop load: request ``n`` goes out at ``n / rate`` seconds, whatever became of those before.

    As a context manager it starts on entry; `finish` ends it and gives the answers. It ends by itself after
    ``seconds``.
    """

    def __init__(
        self, address: Address, rate: float, seconds: float, make: Callable[[int], Call], timeout: float = 90.0
    ) -> None:
        self._address, self._rate, self._count = address, rate, int(rate * seconds)
        self._make, self._timeout = make, timeout
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.sent = 0
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish()

    def finish(self) -> list[Answer]:
        """Send no more, wait for what is out."""
        self._stop.set()
        self._thread.join()
        return self.answers

    def complete(self) -> list[Answer]:
        """Let it run its time."""
        self._thread.join()
        return self.answers

    def endings(self) -> Counter[str]:
        return Counter(answer.ending for answer in self.answers)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        client = Client(self._address)
        out: set[asyncio.Task[None]] = set()

        async def one(call: Call) -> None:
            self.answers.append(await client.send(call, self._timeout))

        started = loop.time()
        for number in range(self._count):
            await asyncio.sleep(max(0.0, started + number / self._rate - loop.time()))
            if self._stop.is_set() or len(out) >= MOST_IN_FLIGHT:
                break
            task = loop.create_task(one(self._make(number)))
            out.add(task)
            task.add_done_callback(out.discard)
            self.sent += 1
        if out:
            await asyncio.wait(out)
        client.close()
