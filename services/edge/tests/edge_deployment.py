"""An edge on a real socket, with a backend that plays the broker and the worker. Use: ``from tests.edge_deployment
import deployed``."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rabbitbal.edge import admin, serve
from rabbitbal.edge.app import Edge
from rabbitbal.edge.copies import Copies
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.settings import Settings
from rabbitbal.edge.spool import SpoolSpace
from rabbitbal.edge.suspects import Suspects
from rabbitbal.routes.watch import RoutesFile
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.fields import Fields, first
from rabbitbal.wire.message import Request, Response, decode_request, encode_response
from rabbitbal.wire.reasons import Reason

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
MIB = 1024 * 1024
LIMITS = Settings(host="127.0.0.1", port=0, body_limit=1000, header_limit=2048, target_limit=200, timeout=20)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.002)


class Backend:
    """A broker with one worker: answers a request with ``answer(request)``, or keeps it when that is None."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], Response | None] = lambda request: Response(200, [], b"ok")
        self.pending: Pending | None = None
        self.envelopes: list[Envelope] = []
        self.requests: list[Request] = []
        self.keys: list[str] = []
        self.ended: list[Envelope] = []
        self.streams: list[tuple[Envelope, bytes]] = []

    def up(self) -> bool:
        return True

    async def wait_up(self) -> None:
        """Always up."""

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict:
        if exchange == topology.EVENTS:
            self.ended.append(envelope)
        if exchange == topology.STREAMS:
            self.streams.append((envelope, body))
        if exchange == topology.REQUESTS:
            self.envelopes.append(envelope)
            self.keys.append(key)
            self.requests.append(decode_request(body, more=bool(envelope.more)))
            response = self.answer(self.requests[-1])
            if response is not None:
                self.reply(len(self.requests) - 1, response)
        return Verdict.ROUTED

    def reply(self, number: int, response: Response, reason: Reason | None = None) -> None:
        self._say(Kind.RESPONSE, number, encode_response(response), reason=reason, duration=1000)

    def head(self, response: Response, number: int = -1) -> None:
        self._say(Kind.RESPONSE, number, encode_response(response, more=True), more=True)

    def piece(self, sequence: int, body: bytes, number: int = -1, *, more: bool = True, **other: Any) -> None:
        self._say(Kind.BODY, number, body, sequence=sequence, more=more, **other)

    def claim(self, credit: int = 1 << 40, number: int = -1) -> None:
        self._say(Kind.CLAIM, number, b"", credit=credit)

    def credit(self, credit: int, number: int = -1) -> None:
        self._say(Kind.CREDIT, number, b"", credit=credit)

    def _say(self, kind: Kind, number: int, payload: bytes, **more: Any) -> None:
        assert self.pending is not None
        request = self.envelopes[number]
        self.pending.reply(Envelope(kind, request.correlation_id, "worker-1", attempt=request.attempt, **more), payload)

    def told(self, kind: Kind) -> list[tuple[Envelope, bytes]]:
        return [(envelope, body) for envelope, body in self.streams if envelope.kind is kind]

    @property
    def uploaded(self) -> bytes:
        return b"".join(body for _, body in self.told(Kind.BODY))

    @property
    def upload_ended(self) -> bool:
        return any(not envelope.more for envelope, _ in self.told(Kind.BODY))


class Answer:
    """A response as it came over the socket."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *lines = head.split(b"\r\n")
        self.line = line
        self.status = int(line.split(b" ")[1])
        self.fields: Fields = [(name.lower(), value) for name, _, value in (text.partition(b": ") for text in lines)]
        self.body = body

    def __getitem__(self, name: str) -> bytes | None:
        return first(self.fields, name.encode())


class Conversation:
    """A client connection on which the test decides about every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            bodiless = head_only or head.split(b" ")[1] in (b"204", b"304", b"100")
            body = await self.reader.readexactly(int(length[1])) if length and not bodiless else b""
            return Answer(head[:-4], body)

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer()

    async def at_end(self) -> bool:
        """Whether the server closed without another byte."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    async def head(self) -> Answer:
        """The head alone of an answer whose body is read by the test."""
        async with asyncio.timeout(5):
            return Answer((await self.reader.readuntil(b"\r\n\r\n"))[:-4], b"")

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(5):
            return await self.reader.readexactly(size)

    async def chunk(self) -> bytes:
        """The next chunk, b"" for the last."""
        async with asyncio.timeout(5):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def chunks(self) -> bytes:
        """All of them, to the last."""
        body = b""
        while chunk := await self.chunk():
            body += chunk
        return body

    async def to_end(self) -> bytes:
        """All that comes until the server closes. Raises ConnectionResetError where it breaks the connection."""
        async with asyncio.timeout(5):
            return await self.reader.read()

    def hang_up(self) -> None:
        self.writer.transport.abort()


class Deployment:
    """An edge that serves, and the backend behind it. ``told`` is what its table of routes said."""

    routes: RoutesFile
    told: list[dict[str, object]]
    suspects: Suspects

    def __init__(self, app: Edge, pending: Pending, backend: Backend, server: Any) -> None:
        self.app, self.pending, self.backend, self.server = app, pending, backend, server
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self._open: list[Conversation] = []

    async def connect(self) -> Conversation:
        self._open.append(Conversation(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self._open[-1]

    async def ask(self, data: bytes) -> Answer:
        return await (await self.connect()).ask(data)

    def hang_up(self) -> None:
        for conversation in self._open:
            conversation.hang_up()


@asynccontextmanager
async def deployed(settings: Settings) -> AsyncIterator[Deployment]:
    backend = Backend()
    pending = backend.pending = Pending("edge-1", backend, settings.max_pending, settings.buffer_limit)
    told: list[dict[str, object]] = []
    routes = RoutesFile(settings.routes, told.append)
    routes.start()
    spools = SpoolSpace(settings.spool_total, settings.spool_limit, settings.spool_dir)
    copies = Copies(pending, spools)
    suspects = Suspects()
    own: Any = admin.build("edge-1", settings, pending, routes, copies, lambda: True)
    app = Edge(settings, pending, routes, copies, spools, suspects, own)
    server = serve._server(settings, app)
    # The server's start without its loop, which looks every tenth of a second whether it shall end.
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    deployment = Deployment(app, pending, backend, server)
    deployment.routes, deployment.told, deployment.suspects = routes, told, suspects
    try:
        yield deployment
    finally:
        deployment.hang_up()
        await until(lambda: not server.server_state.connections and not server.server_state.tasks)
        server.servers[0].close()
        assert len(pending) == 0


def replace_file(path: Path, text: str) -> None:
    """As an editor should: whoever looks meanwhile sees the old file or the new one."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


def said(answer: Answer) -> tuple[int, bytes | None]:
    return answer.status, answer["rabbitbal-error"]
