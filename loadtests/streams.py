"""Measures streams through the running deployment, and prints Markdown tables.

    python loadtests/streams.py big --bytes 1G
    python loadtests/streams.py slow --readers 200 --bytes 50M
    python loadtests/streams.py sse --clients 20 --seconds 30
    python loadtests/streams.py ws --clients 20 --seconds 30

Memory is read from the containers' cgroups, so the deployment must run on this machine. What is compared with `direct`
runs at the same time against the demonstration under uvicorn alone, so that both feel the same noise. The exit status
is 1 where a promise was not kept.
"""

import argparse
import asyncio
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from streaming.direct import uvicorn
from streaming.figures import comparison, percentile, size
from streaming.http import Failed, get, post
from streaming.memory import MIB, Memory, Unmeasurable

LOOPBACK = ("127.0.0.1", "localhost", "::1")
BLOCK = bytes(range(256)) * 256  # what /bytes/N repeats
MORE_OWN = 64 * MIB
MORE_LAG = 0.020


def say(text: str) -> None:
    """Progress; the tables alone are on standard output."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


async def pattern(length: int) -> AsyncIterator[bytes]:
    while length > 0:
        yield BLOCK[:length]
        length -= len(BLOCK)


async def digest(length: int) -> str:
    whole = hashlib.sha256()
    async for part in pattern(length):
        whole.update(part)
    return whole.hexdigest()


async def big(options: argparse.Namespace) -> bool:
    """One body up, one down: checksums, and what it costs in memory."""
    wanted, rows, good = await digest(options.bytes), [], True
    for direction in ("up", "down"):
        say(f"{options.bytes} bytes {direction}")
        async with Memory(options.project) as memory:
            began = time.monotonic()
            if direction == "up":
                length = None if options.chunked else options.bytes
                response, body = await post(options.url, "/digest", pattern(options.bytes), length)
                response.check()
                seen = json.loads(body)
                equal = (seen["bytes"], seen["sha256"]) == (options.bytes, wanted)
            else:
                equal = await download(options) == wanted
            took = time.monotonic() - began
        grown = memory.growth()
        kept = max(grown.get(service, 0) for service in ("edge", "worker", "rabbitmq")) <= MORE_OWN
        good &= equal and kept
        rows.append(
            f"### {options.bytes} bytes {direction}\n\n{took:.1f} s, {options.bytes / took / MIB:.0f} MiB/s, checksums "
            f"{'equal' if equal else 'DIFFERENT'}; edge, worker and broker {'' if kept else 'NOT '}within "
            f"{MORE_OWN // MIB} MiB of idle\n\n{memory.table()}\n"
        )
    print("\n".join(rows))
    return good


async def download(options: argparse.Namespace) -> str:
    seen = hashlib.sha256()
    async with get(options.url, f"/bytes/{options.bytes}") as response:
        response.check()
        async for part in response.parts():
            seen.update(part)
    return seen.hexdigest()


async def slow(options: argparse.Namespace) -> bool:
    """Many readers at once, each as slow as is asked for; then they leave, or read the rest."""
    read = [0] * options.readers
    endings: Counter[str] = Counter()
    deadline = time.monotonic() + options.seconds + options.patience

    async def reader(number: int) -> None:
        try:
            async with get(options.url, f"/bytes/{options.bytes}", buffer=16_384) as response:
                response.check()
                began = time.monotonic()
                async for part in response.parts(piece=16_384):
                    read[number] += len(part)
                    if time.monotonic() - began < options.seconds:
                        await asyncio.sleep(max(began + read[number] / options.rate - time.monotonic(), 0))
                    elif not options.finish:
                        endings["left"] += 1
                        return
                whole = read[number] == options.bytes
                endings["whole" if whole else f"{read[number]} bytes"] += 1
        except Failed as failure:
            endings[str(failure)] += 1

    async with Memory(options.project) as memory:
        say(f"{options.readers} readers of {options.bytes} bytes at {options.rate} bytes/s")
        tasks = [asyncio.create_task(reader(number)) for number in range(options.readers)]
        while not all(task.done() for task in tasks) and time.monotonic() < deadline:
            await asyncio.wait(tasks, timeout=2)
            say(f"{sum(task.done() for task in tasks)} done, {sum(read) / MIB:.0f} MiB read")
        endings["still reading when patience ended"] = sum(not task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(f"### {options.readers} slow readers of {options.bytes / MIB:.0f} MiB\n")
    print(f"read by each: least {min(read)}, median {percentile(read, 0.5):.0f}, most {max(read)} bytes")
    print(f"ends: {', '.join(f'{count} {ending}' for ending, count in endings.items() if count)}\n\n{memory.table()}")
    return not set(+endings) - {"left", "whole"} and min(read) > 0


async def sse(options: argparse.Namespace) -> bool:
    """Server-sent events: how late each is, by one machine's clock."""
    events = int(options.rate * options.seconds)
    target = f"/sse?events={events}&ms={1000 / options.rate:.0f}"
    faults: Counter[str] = Counter()

    async def listen(url: str, lags: list[float]) -> None:
        heard = 0
        try:
            async with get(url, target) as response:
                response.check()
                pending = b""
                async for part in response.parts():
                    now = time.time_ns()
                    *whole, pending = (pending + part).split(b"\n\n")
                    for event in whole:
                        heard += 1
                        fields = dict(line.split(": ", 1) for line in event.decode().split("\n"))
                        if fields["id"] != str(heard):
                            raise Failed(f"event {fields['id']} came as number {heard}")
                        lags.append((now - int(fields["data"])) / 1e9)
            if heard != events:
                raise Failed(f"{heard} events instead of {events}")
        except Failed as failure:
            faults[f"{'through' if url == options.url else 'direct'}: {failure}"] += 1

    through, direct = await side_by_side(options, listen)
    print(f"### {options.clients} clients, {options.rate:g} events/s each, {options.seconds:g} s\n")
    return verdict("lag of an event", through, direct, faults)


async def ws(options: argparse.Namespace) -> bool:
    """WebSocket: the time from a message to its echo."""
    messages, payload = int(options.rate * options.seconds), "x" * options.size
    faults: Counter[str] = Counter()

    async def talk(url: str, times: list[float]) -> None:
        try:
            async with connect(f"ws://{urlsplit(url).netloc}/ws", compression=None, proxy=None) as connection:
                began = time.monotonic()
                for number in range(messages):
                    await asyncio.sleep(max(began + number / options.rate - time.monotonic(), 0))
                    sent = time.perf_counter()
                    await connection.send(payload)
                    echo = await connection.recv()
                    times.append(time.perf_counter() - sent)
                    if echo != payload:
                        faults["an echo is not what was sent"] += 1
        except (OSError, WebSocketException) as error:
            faults[f"{'through' if url == options.url else 'direct'}: {error}"] += 1

    through, direct = await side_by_side(options, talk)
    print(f"### {options.clients} clients, {options.rate:g} messages of {options.size} bytes/s each\n")
    return verdict("round trip", through, direct, faults)


async def side_by_side(options: argparse.Namespace, client: object) -> tuple[list[float], list[float]]:
    """So many clients of both servers at once, their beginnings spread over a second."""
    assert callable(client)
    through: list[float] = []
    direct: list[float] = []

    async def late(number: int, url: str, figures: list[float]) -> None:
        await asyncio.sleep(number / options.clients)
        await client(url, figures)

    async with uvicorn() as url:
        say(f"{options.clients} clients through {options.url} and as many of {url}, {options.seconds:g} s")
        pairs = ((options.url, through), (url, direct))
        await asyncio.gather(*(late(n, *pair) for n in range(options.clients) for pair in pairs))
    return through, direct


def verdict(what: str, through: list[float], direct: list[float], faults: Counter[str]) -> bool:
    print(comparison(what, through, direct))
    for fault, count in faults.items():
        print(f"\n{count} x {fault}")
    if not through or not direct:
        return False
    more = percentile(through, 0.99) - percentile(direct, 0.99)
    print(f"\np99 is {1000 * more:.1f} ms more than direct; the promise is less than {1000 * MORE_LAG:.0f}")
    return not faults and more < MORE_LAG


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="nginx, on the loopback only")
    parser.add_argument("--project", default="rabbitbal", help="compose project")
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("big", help="one large body up, one down: checksums and memory")
    command.set_defaults(run=big)
    command.add_argument("--bytes", type=size, default="1G", help="of each body, 1G at most")
    command.add_argument("--chunked", action="store_true", help="send it without Content-Length")

    command = commands.add_parser("slow", help="many slow readers at once: memory")
    command.set_defaults(run=slow)
    command.add_argument("--readers", type=int, default=200)
    command.add_argument("--bytes", type=size, default="50M", help="of each response")
    command.add_argument("--rate", type=size, default="64K", help="bytes per second of each reader")
    command.add_argument("--seconds", type=float, default=20, help="of slow reading")
    command.add_argument("--finish", action="store_true", help="then read the rest, instead of leaving")
    command.add_argument("--patience", type=float, default=300, help="seconds for the rest")

    for name, run, text in (("sse", sse, "lag of server-sent events"), ("ws", ws, "round trips of a WebSocket")):
        command = commands.add_parser(name, help=f"{text}, through and direct")
        command.set_defaults(run=run)
        command.add_argument("--clients", type=int, default=10)
        command.add_argument("--rate", type=float, default=10, help="per second and client")
        command.add_argument("--seconds", type=float, default=30)
    command.add_argument("--size", type=int, default=64, help="bytes of a message")

    options = parser.parse_args()
    if urlsplit(options.url).hostname not in LOOPBACK:
        parser.error("load goes to the loopback only")
    try:
        good = asyncio.run(options.run(options))
    except (Failed, Unmeasurable) as error:
        sys.exit(f"streams: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(not good)


if __name__ == "__main__":
    main()
