"""Open-loop load on the demo application, with the books kept: what was sent, how it ended, what ran twice.

Arrivals are seeded and do not wait for answers, and latency counts from the scheduled arrival, so a stall is felt by
all requests that it delays (no coordinated omission). Each request carries a key, and the demo application writes a
line when it starts to run one: reading the workers' logs tells what ran more than once.

    python loadtests/openloop.py --rate 300 --seconds 30 --kill 2 --at 10
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = 90.0
KINDS = ("GET", "POST", "POST with key")


@dataclass
class Outcome:
    kind: str
    key: str
    status: int = 0
    """0: no answer at all."""
    reason: str = ""
    worker: str = ""
    seconds: float = 0.0


class Client:
    """Persistent connections to one server, as many as there are requests at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection that is still open: nginx closes one that was idle for 75 s."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def request(self, head: bytes) -> tuple[int, dict[str, str]]:
        """Status and (lower-case) header fields of the answer. Raises OSError or EOFError."""
        reader, writer = self._kept() or await asyncio.open_connection(*self._address)
        try:
            writer.write(head)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            if fields.get("transfer-encoding") == "chunked":
                while size := int((await reader.readline()).split(b";")[0], 16):
                    await reader.readexactly(size + 2)
                await reader.readline()
            else:
                await reader.readexactly(int(fields.get("content-length", "0")))
        except BaseException:
            writer.close()
            raise
        if fields.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(lines[0].split(" ")[1]), fields


def schedule(rate: float, seconds: float, seed: int) -> Iterator[tuple[float, str, int]]:
    """Poisson arrivals: (second, kind, milliseconds of work). Nine in ten take 10 ms, one takes 100."""
    rng = random.Random(seed)
    at = rng.expovariate(rate)
    while at < seconds:
        yield at, rng.choices(KINDS, (8, 1, 1))[0], 100 if rng.random() < 0.1 else 10
        at += rng.expovariate(rate)


async def one(client: Client, host: str, run: str, number: int, kind: str, ms: int, due: float) -> Outcome:
    outcome = Outcome(kind, f"{run}-{number}")
    method = kind.split(" ")[0]
    extra = f"Idempotency-Key: {outcome.key}\r\n" if kind == "POST with key" else ""
    length = "Content-Length: 0\r\n" if method == "POST" else ""
    head = f"{method} /work?ms={ms}&key={outcome.key} HTTP/1.1\r\nHost: {host}\r\n{extra}{length}\r\n"
    try:
        async with asyncio.timeout(PATIENCE):
            outcome.status, fields = await client.request(head.encode())
        outcome.reason = fields.get("rabbitbal-error", "")
        outcome.worker = fields.get("rabbitbal-worker", "")
    except (OSError, EOFError, TimeoutError) as error:
        outcome.reason = f"no answer: {type(error).__name__}"
    outcome.seconds = time.monotonic() - due
    return outcome


async def load(options: argparse.Namespace, run: str) -> list[Outcome]:
    url = urlsplit(options.url)
    client = Client(url.hostname or "", url.port or 80)
    start = time.monotonic() + 0.5
    tasks = []
    killer = asyncio.create_task(kill(options, start)) if options.kill else None
    for number, (at, kind, ms) in enumerate(schedule(options.rate, options.seconds, options.seed)):
        await asyncio.sleep(max(start + at - time.monotonic(), 0))
        tasks.append(asyncio.create_task(one(client, url.netloc, run, number, kind, ms, start + at)))
    outcomes = await asyncio.gather(*tasks)
    if killer is not None:
        await killer
    return list(outcomes)


async def kill(options: argparse.Namespace, start: float) -> None:
    """SIGKILL the first workers of the project at the given second."""
    await asyncio.sleep(start + options.at - time.monotonic())
    names = compose(options, "ps", "--format", "{{.Name}}", "worker").split()[: options.kill]
    process = await asyncio.create_subprocess_exec("docker", "kill", *names, stdout=subprocess.DEVNULL)
    await process.wait()
    print(f"killed at {time.monotonic() - start:.1f} s: {', '.join(names)}", flush=True)


def compose(options: argparse.Namespace, *arguments: str) -> str:
    return subprocess.run(
        ["docker", "compose", "-p", options.project, *arguments], check=True, capture_output=True, text=True
    ).stdout


def runs(options: argparse.Namespace, run: str) -> Counter[str]:
    """How many times each key of this run was started, by the workers' logs."""
    counted: Counter[str] = Counter()
    for line in compose(options, "logs", "--no-log-prefix", "--no-color", "worker").splitlines():
        if '"ran"' in line and run in line:
            counted[json.loads(line[line.index("{") :])["key"]] += 1
    return counted


def report(outcomes: list[Outcome], counted: Counter[str]) -> None:
    print(
        f"{'kind':14} {'sent':>6} {'200':>6} {'other':>6} {'none':>5} {'ran twice':>9} {'ran 3+':>6}  others by reason"
    )
    for kind in KINDS:
        mine = [outcome for outcome in outcomes if outcome.kind == kind]
        reasons = Counter(f"{o.status} {o.reason}" for o in mine if o.status != 200)
        print(
            f"{kind:14} {len(mine):6} {sum(o.status == 200 for o in mine):6}"
            f" {sum(o.status not in (0, 200) for o in mine):6} {sum(o.status == 0 for o in mine):5}"
            f" {sum(counted[o.key] == 2 for o in mine):9} {sum(counted[o.key] > 2 for o in mine):6}"
            f"  {', '.join(f'{reason}: {count}' for reason, count in reasons.items()) or '-'}"
        )
    never = sum(o.status == 200 and not counted[o.key] for o in outcomes)
    print(f"answered 200 without a run in the logs: {never}")
    print(f"workers seen: {len({o.worker for o in outcomes if o.worker})}")
    times = sorted(outcome.seconds * 1000 for outcome in outcomes)
    cuts = statistics.quantiles(times, n=1000)
    print(
        f"ms from the scheduled arrival: p50 {cuts[499]:.0f}  p90 {cuts[899]:.0f}"
        f"  p99 {cuts[989]:.0f}  max {times[-1]:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="server, on the loopback only")
    parser.add_argument("--rate", type=float, default=300, help="requests per second")
    parser.add_argument("--seconds", type=float, default=30, help="length of the run, 300 at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill", type=int, default=0, help="workers to kill")
    parser.add_argument("--at", type=float, default=10, help="second of the kill")
    parser.add_argument("--project", default="rabbitbal", help="compose project")
    options = parser.parse_args()
    if urlsplit(options.url).hostname not in LOOPBACK:
        parser.error("load goes to the loopback only")
    options.seconds = min(options.seconds, 300)
    run = uuid4().hex[:12]
    outcomes = asyncio.run(load(options, run))
    report(outcomes, runs(options, run))
    sys.exit(any(o.status != 200 and o.kind != "POST" for o in outcomes))


if __name__ == "__main__":
    main()
