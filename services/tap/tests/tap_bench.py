"""What a message costs the tap, by part: processor time, and memory with all tables full. No broker.

    PYTHONPATH=wire:services/runtime:services/tap .venv/bin/python services/tap/tests/tap_bench.py --requests 50000

Requests are made up: most are answered whole, some streamed, claimed, or late. Messages go through the parts that the
service has, one part after the other over each batch, so that each has a time of its own. The books are a new SQLite
file, access lines go to a file, and spans (of one request in ten) to nobody. What the broker's client library does to a
message is not in it.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from rabbitbal.runtime.broker import Server
from rabbitbal.tap import sinks
from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.bots.service import Bots
from rabbitbal.tap.comparison import Comparison
from rabbitbal.tap.dashboard import Dashboard
from rabbitbal.tap.fleet import Fleet
from rabbitbal.tap.journal import Journal
from rabbitbal.tap.ledger.books import Books
from rabbitbal.tap.ledger.service import open_books
from rabbitbal.tap.monitoring import Monitoring
from rabbitbal.tap.observation import Observation, Part, observe
from rabbitbal.tap.recorder import Recorder
from rabbitbal.tap.redaction import Redactor
from rabbitbal.tap.settings import Settings
from rabbitbal.tap.traces import Traces
from rabbitbal.wire.envelope import Envelope, Kind, parse_envelope
from rabbitbal.wire.figures import EdgeFigures, encode_figures
from rabbitbal.wire.message import Request, Response, encode_request, encode_response
from rabbitbal.wire.reasons import Reason

CLIENTS, PATHS, WORKERS, ROUTES = 20_000, 2_000, 16, 8
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/604.1",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "curl/8.5.0",
)
PAGE = encode_response(Response(200, [(b"Content-Type", b"text/html"), (b"Set-Cookie", b"s=1; Path=/")], b"x" * 2000))
MISSING = encode_response(Response(404, [(b"Content-Type", b"text/plain")], b"no such page"))
STREAM = encode_response(Response(200, [(b"Content-Type", b"text/event-stream")]), more=True)
# A batch is what the tap acknowledges as one.
BATCH = 200


@dataclass(slots=True)
class Message:
    """As it comes off the queue."""

    envelope: Envelope
    payload: bytes
    key: str

    def read(self) -> Envelope:
        sent = self.envelope
        return parse_envelope(
            kind=sent.kind.value,
            correlation_id=sent.correlation_id,
            app_id=sent.app_id,
            reply_to=sent.reply_to,
            headers=sent.headers(),
        )


def messages(number: int, rng: random.Random, at: float, *, answered: bool = True) -> Iterator[Message]:
    """Of one request."""
    name, sent = token_hex(16), int(at * 1000)
    client, lot = rng.randrange(CLIENTS), rng.random()
    fields = [
        (b"Host", b"shop.example.org"),
        (b"User-Agent", AGENTS[client % len(AGENTS)].encode()),
        (b"Accept", b"text/html,application/xhtml+xml"),
        (b"Accept-Language", b"en"),
        (b"Cookie", b"session=0123456789abcdef"),
        (b"X-Forwarded-For", b"198.%d.%d.%d" % (18 + client % 2, client // 256 % 256, client % 256)),
        (b"X-Forwarded-Proto", b"https"),
    ]
    target = b"/catalog/%d?page=%d&token=abc" % (rng.randrange(PATHS), number % 7)
    traced: dict[str, Any] = {}
    if number % 10 == 0:
        traced = {"traceparent": f"00-{token_hex(16)}-{token_hex(8)}-01", "caller_span": token_hex(8)}
    asked = Envelope(
        Kind.REQUEST, name, "edge-1", reply_to="response.edge-1", route=f"route-{number % ROUTES}", sent=sent,
        deadline=sent + 30_000, repeatable=True, **traced,
    )  # fmt: skip
    yield Message(asked, encode_request(Request("GET", target, fields)), "request.default")
    if not answered:
        return
    worker, key = f"worker-{number % WORKERS}", "response.edge-1"

    def said(kind: Kind, payload: bytes = b"", **more: Any) -> Message:
        envelope = Envelope(kind, name, worker, pool="default", sent=sent + 9, duration=7_000, **more)
        return Message(envelope, payload, key)

    def ended(reason: Reason | None, status: int) -> Message:
        envelope = Envelope(
            Kind.ENDED,
            name,
            "edge-1",
            route="route-1",
            reason=reason,
            status=status,
            size=0,
            duration=9_000,
            sent=sent + 9,
        )
        return Message(envelope, b"", "ended.edge-1")

    if lot < 0.05:
        yield said(Kind.CLAIM)
    if lot < 0.02:
        yield ended(Reason.WORKER_TIMEOUT, 504)
    elif lot < 0.08:
        yield said(Kind.RESPONSE, STREAM, more=True)
        yield ended(None, 200)
    else:
        yield said(Kind.RESPONSE, MISSING if lot < 0.15 else PAGE)


def figures(opened: int) -> Message:
    now = int(time.time() * 1000)
    told = EdgeFigures(at=now, since=now - 60_000, opened=opened, closed=opened, untold=0, pending=0, oldest=None)
    return Message(Envelope(Kind.FIGURES, "figures", "edge-1"), encode_figures(told), "figures.edge.edge-1")


class Tap:
    """The parts of `rabbitbal.tap.serve`, without what listens and connects."""

    def __init__(self, settings: Settings) -> None:
        redactor = Redactor(settings.redact)
        self.access = AccessLog(settings.open_limit, redactor)
        out = sinks.build(settings, "tap-1", asyncio.get_running_loop().call_later)
        self.journal = Journal(self.access, Comparison(10_000, 600.0), out)
        self.books = open_books(settings, redactor, lambda: True)
        fleet = Fleet()
        server = Server(settings.broker_url, None)
        monitoring = Monitoring(settings, "tap-1", server, fleet, self.books, lambda: (0, 0, 0))
        self.traces = Traces(lambda span: None, settings.traces_limit, redactor)
        dashboard = Dashboard("tap-1", settings.stories, {}, dict)
        bots = Bots(settings, "tap-1")
        named: list[Part] = [
            self.journal, fleet, bots.watcher, *dashboard.parts, Recorder(redactor), self.traces, monitoring.metrics,
        ]  # fmt: skip
        self.parts: list[Part] = [*named, *([] if self.books is None else [self.books])]
        self.spent: defaultdict[str, int] = defaultdict(int)
        """Nanoseconds of this thread's processor time, by part."""
        self.seen = 0
        self.wrote = 0

    async def read(self, batch: list[Message]) -> None:
        self.seen += len(batch)
        start = time.thread_time_ns()
        envelopes = [message.read() for message in batch]
        start = self._took("envelope", start)
        now = time.time()
        seen = [
            observe(now, envelope, message.payload, None, redelivered=False, key=message.key)
            for envelope, message in zip(envelopes, batch, strict=True)
        ]
        start = self._took("HTTP", start)
        for part in self.parts:
            self._show(part, seen)
            start = self._took(type(part).__name__, start)
        self.journal.flush()
        start = self._took("access lines written", start)
        if self.books is not None:
            await self._commit(self.books)

    def _show(self, part: Part, seen: list[Observation]) -> None:
        for each in seen:
            part.see(each)

    async def _commit(self, books: Books) -> None:
        """In a thread of its own, so all of the process counts."""
        start = time.process_time_ns()
        await books.commit()
        self.wrote += time.process_time_ns() - start

    def _took(self, name: str, start: int) -> int:
        now = time.thread_time_ns()
        self.spent[name] += now - start
        return now


def batches(stream: Iterator[Message]) -> Iterator[list[Message]]:
    batch: list[Message] = []
    for message in stream:
        batch.append(message)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    yield batch


def traffic(requests: int, rng: random.Random, *, answered: bool = True) -> Iterator[Message]:
    for number in range(requests):
        yield from messages(number, rng, time.time(), answered=answered)
        if number % 2_000 == 1_999:
            yield figures(number + 1)


def memory() -> float:
    """Resident MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


async def bench(options: argparse.Namespace, folder: Path) -> None:
    settings = Settings(
        ledger_url=f"sqlite:///{folder}/ledger.db", access_log="file", access_log_file=folder / "access.log"
    )
    tap = Tap(settings)
    if tap.books is not None:
        await tap.books.prepare()
    rng, empty = random.Random(options.seed), memory()
    started = time.process_time()
    for batch in batches(traffic(options.requests, rng)):
        await tap.read(batch)
    told = sum(tap.spent.values()) + tap.wrote
    print(f"{options.requests} requests, {tap.seen} messages ({tap.seen / options.requests:.2f} a request)\n")
    print("| part | µs a message | µs a request |\n| --- | ---: | ---: |")
    for name, spent in [*tap.spent.items(), ("Books: committed", tap.wrote), ("all", told)]:
        print(f"| {name} | {spent / 1000 / tap.seen:.2f} | {spent / 1000 / options.requests:.2f} |")
    print(f"\nprocessor time of the process {time.process_time() - started:.1f} s, with the making of the messages")
    served = memory()
    # Twice as many as are remembered.
    for batch in batches(traffic(2 * settings.open_limit, rng, answered=False)):
        await tap.read(batch)
    print(
        f"memory: {empty:.0f} MiB empty, {served:.0f} after that, {memory():.0f} with {len(tap.access)} open requests "
        f"({tap.access.forgotten} forgotten), {len(tap.traces)} of them traced"
    )
    if tap.books is not None:
        tap.books.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rabbitbal-tap-") as folder:
        asyncio.run(bench(options, Path(folder)))


if __name__ == "__main__":
    main()
