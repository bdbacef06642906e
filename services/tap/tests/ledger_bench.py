"""What the books cost: rows per second and CPU per request, and how long questions take when there is much.

    PYTHONPATH=wire:services/runtime:services/tap .venv/bin/python services/tap/tests/ledger_bench.py \
        sqlite:////tmp/bench.db --requests 1000000

Every request is a message and its answer; they go through `Books.see` and `Books.commit`, in batches as the tap reads
them. The database must be a new one.
"""

import argparse
import asyncio
import os
import resource
import time
from collections.abc import Callable
from secrets import token_hex
from typing import Any

from sqlalchemy import Connection

from rabbitbal.tap.ledger import queries, retention
from rabbitbal.tap.ledger.books import Books
from rabbitbal.tap.ledger.database import Database, Slow, parse
from rabbitbal.tap.observation import Observation, observe
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.message import Request, Response, encode_request, encode_response

CLIENTS, WORKERS, ROUTES = 1000, 16, 4
ANSWER = encode_response(Response(200, [(b"Content-Type", b"text/plain")], b"hello"))


def exchange(number: int, at: float) -> tuple[Observation, Observation]:
    """A request and its answer."""
    name, sent, client = token_hex(16), int(at * 1000), number % CLIENTS
    fields = [
        (b"Host", b"shop.example.org"),
        (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        (b"X-Forwarded-For", b"203.0.%d.%d" % (client // 250, client % 250)),
        (b"Referer", b"https://shop.example.org/catalog"),
    ]
    payload = encode_request(Request("GET", b"/catalog/%d?page=2" % number, fields))
    asked = Envelope(
        Kind.REQUEST, name, "edge-1", reply_to="response.edge-1", route=f"route-{number % ROUTES}", sent=sent
    )
    worker = f"worker-{number % WORKERS}"
    answer = Envelope(Kind.RESPONSE, name, worker, pool="default", duration=5_000, sent=sent + 6)
    return (
        observe(at, asked, payload, None, redelivered=False, key="request.default"),
        observe(at, answer, ANSWER, None, redelivered=False, key="response.edge-1"),
    )


async def fill(books: Books, requests: int, batch: int) -> None:
    seen = wrote = cpu = 0.0
    begun = time.monotonic()
    for start in range(0, requests, batch):
        observations = [o for n in range(start, min(start + batch, requests)) for o in exchange(n, time.time())]
        before, used = time.perf_counter(), _cpu()
        for observation in observations:
            books.see(observation)
        between = time.perf_counter()
        await books.commit()
        after = time.perf_counter()
        seen, wrote, cpu = seen + between - before, wrote + after - between, cpu + _cpu() - used
        done = start + batch
        if done % max(batch, requests // 10 // batch * batch) == 0:
            print(f"{done:>9} requests after {time.monotonic() - begun:6.1f} s", flush=True)
    total = seen + wrote
    print(f"{requests / total:.0f} requests/s, {2 * requests / total:.0f} rows/s of debits and credits")
    print(
        f"{seen / requests * 1e6:.1f} us to see a request and its answer, {wrote / requests * 1e6:.1f} us to book them"
    )
    print(f"{cpu / requests * 1e6:.1f} us of CPU of this process for each request")
    print(f"resident memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


def ask(database: Database, what: str, question: Callable[[Connection], Any]) -> None:
    before = time.perf_counter()
    try:
        database.asked(question)
        said = f"{(time.perf_counter() - before) * 1000:8.1f} ms"
    except Slow as error:
        said = f"refused: {error}"
    print(f"{what:32} {said}")


def look(database: Database, requests: int) -> None:
    size = database.written(retention.used)
    print(f"{size / 2**20:.0f} MiB, {size / max(requests, 1):.0f} bytes for each request")
    now = int(time.time() * 1000)
    ask(database, "balance", lambda c: queries.balance(c, None, 50, check=False))
    for kind in ("route", "worker", "client"):
        ask(database, f"balance by {kind}", lambda c, kind=kind: queries.balance(c, kind, 50, check=False))  # type: ignore[misc]
    ask(database, "balance, counted anew", lambda c: queries.balance(c, None, 50, check=True))
    ask(database, "open", lambda c: queries.open_entries(c, 100, now))
    (name, *_), *_ = database.asked(lambda c: c.exec_driver_sql("SELECT id FROM debits LIMIT 1").all())
    ask(database, "explain by an id", lambda c: queries.story(c, name))
    ask(database, "explain by 12 characters", lambda c: queries.story(c, name[:12]))
    ask(database, "gaps", lambda c: queries.gaps(c, 100))
    before = time.perf_counter()
    found = database.written(lambda c: retention.forget(c, None))
    print(f"{f'forget {found} requests':32} {(time.perf_counter() - before) * 1000:8.1f} ms")


def _cpu() -> float:
    used = os.times()
    return used.user + used.system


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument(
        "--batch", type=int, default=200, help="requests; a tap at 2,000 requests/s reads so many at a time"
    )
    options = parser.parse_args()
    url = parse(options.url)
    assert url is not None
    database = Database(url)
    books = Books(database, Redactor(), lambda: True, 30, retention.Retention(1e9, 1 << 40))
    await books.prepare()
    await fill(books, options.requests, options.batch)
    look(database, options.requests)
    books.close()


if __name__ == "__main__":
    asyncio.run(main())
