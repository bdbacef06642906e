"""The books beside the clients' own count, while workers, edges and the tap are killed and started again.

    python loadtests/books.py --requests 100000

The load is open: arrivals are seeded and wait for no answer. Each request has a key in its target. At seeded moments,
one after the other, a container is killed (SIGKILL) and started again. At the end this waits until the books are at
rest, prints what they say, and compares each request's ending with what its client had: a difference has a name
(`trial/reconciliation.py`), or it is a disagreement, and the exit status is 1.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from openloop import KINDS, Client, Outcome, one, schedule
from streaming.memory import Unmeasurable
from trial.deployment import ROOT, Deployment, docker, healthy, own, say
from trial.reconciliation import MOST_SHOWN, Entry, Reconciliation, Told, reconcile

TABLE = "version: 1\nroutes:\n  - { name: default }\n"
# A tap that was killed reads again what it had not kept; an edge that was killed is silent for half a minute before the
# books write off what it left.
PATIENCE = 240
# The books are at rest when they say the same for so many seconds.
REST = 10
# In the tap's own container, from the file that it has the books in. The target ends with the key.
DUMP = """
import json, sqlite3, sys
books = sqlite3.connect("file:/var/lib/rabbitbal/ledger.db?mode=ro", uri=True)
rows = books.execute(
    "SELECT d.target, d.edge, c.standing, c.status, c.reason FROM debits d LEFT JOIN credits c "
    "ON c.id = d.id AND c.standing IN ('first', 'written-off') WHERE d.target LIKE ?", (f"%key={sys.argv[1]}-%",))
for row in rows:
    print(json.dumps(row))
"""


class Killer:
    """Kills one container after the other, at moments that the seed decides, and starts each again."""

    def __init__(self, options: argparse.Namespace, deployment: Deployment, seconds: float) -> None:
        self._deployment = deployment
        self._down = options.down
        rng = random.Random(options.seed)
        services = ["worker"] * options.workers_killed + ["edge"] * options.edges_killed + ["tap"] * options.taps_killed
        rng.shuffle(services)
        moments = sorted(rng.uniform(0.05, 0.9) * seconds for _ in services)
        self._plan = [(at, name, rng.random()) for at, name in zip(moments, services, strict=True)]
        self.killed: list[tuple[str, str]] = []
        """Service and container."""

    async def run(self, start: float) -> None:
        for at, service, lot in self._plan:
            await asyncio.sleep(max(start + at - time.monotonic(), 0))
            await asyncio.to_thread(self._kill, service, lot)
            say(f"{time.monotonic() - start:.1f} s: {service} killed, started {self._down:g} s later")

    def _kill(self, service: str, lot: float) -> None:
        containers = sorted(self._deployment.containers(service))
        container = containers[int(lot * len(containers))]
        docker("kill", container)
        self.killed.append((service, container))
        time.sleep(self._down)
        docker("start", container)
        if service == "edge":
            # The next one is killed only when this one serves: there is always an edge.
            self._deployment.until(lambda: healthy(container), "the edge is healthy again", 90)


async def load(options: argparse.Namespace, deployment: Deployment, run: str) -> tuple[list[Outcome], Killer]:
    url = urlsplit(deployment.url)
    client = Client(url.hostname or "", url.port or 80)
    plan = list(planned(options))
    killer = Killer(options, deployment, plan[-1][0])
    start = time.monotonic() + 0.5
    killing = asyncio.create_task(killer.run(start))
    tasks = []
    for number, (at, kind, ms) in enumerate(plan):
        await asyncio.sleep(max(start + at - time.monotonic(), 0))
        tasks.append(asyncio.create_task(one(client, url.netloc, run, number, kind, ms, start + at)))
        if number and number % 10_000 == 0:
            say(f"{number} of {len(plan)} requests sent")
    outcomes = list(await asyncio.gather(*tasks))
    await killing
    return outcomes, killer


def planned(options: argparse.Namespace) -> Iterator[tuple[float, str, int]]:
    """Exactly as many arrivals as were asked for."""
    arrivals = schedule(options.rate, float("inf"), options.seed)
    for _ in range(options.requests):
        yield next(arrivals)


def at_rest(deployment: Deployment) -> dict[str, Any]:
    """The balance, once nothing is open and nothing changes any more. What is open in the end, the caller tells."""
    since, seen = time.monotonic(), None
    found: dict[str, Any] = {}
    deadline = since + PATIENCE
    while time.monotonic() < deadline:
        try:
            found = deployment.tap("/api/ledger/balance")
        except OSError:
            time.sleep(1)
            continue
        now = (found["total"], found["gaps"])
        if now != seen or found["total"]["open"]:
            since, seen = time.monotonic(), now
        elif time.monotonic() - since >= REST:
            return found
        time.sleep(1)
    say(f"the books are not at rest after {PATIENCE} s")
    if not found:
        raise Unmeasurable("the tap does not tell its balance")
    return found


def entries(deployment: Deployment, run: str) -> list[Entry]:
    found = []
    for line in deployment.compose("exec", "-T", "tap", "python", "-c", DUMP, run).splitlines():
        target, edge, standing, status, reason = json.loads(line)
        found.append(Entry(target.rpartition("key=")[2], edge, standing, status, reason))
    return found


def report(outcomes: list[Outcome], books: list[Entry], balance: dict[str, Any], found: Reconciliation) -> None:
    print("### The books\n\n| clients | sent | 200 | other | none |\n| --- | ---: | ---: | ---: | ---: |")
    for kind in KINDS:
        mine = [outcome.status for outcome in outcomes if outcome.kind == kind]
        good, none = mine.count(200), mine.count(0)
        print(f"| {kind} | {len(mine)} | {good} | {len(mine) - good - none} | {none} |")
    others = Counter(f"{o.status} {o.reason}".strip() for o in outcomes if o.status != 200)
    print(f"\nothers: {_listed(others)}\n\n| books | |\n| --- | ---: |")
    total, gaps = balance["total"], balance["gaps"]
    for name in ("debits", "credits", "written_off", "open", "duplicates", "late", "unmatched"):
        print(f"| {name} | {total[name]} |")
    for cause, missing in gaps.items():
        print(f"| gap: {cause} | {missing['debits']} debits, {missing['credits']} credits |")
    endings = Counter(total["endings"])
    print(f"\nendings: {_listed(endings)}")
    written_off = Counter(str(entry.reason) for entry in books if entry.standing == "written-off")
    print(f"written off, by reason: {_listed(written_off)}")
    print(f"entries of this run {len(books)}, of others (this deployment's start) {total['debits'] - len(books)}\n")
    print("| requests | what became of them |\n| ---: | --- |")
    for name, number in found.kinds.most_common():
        print(f"| {number} | {name} |")
    print(f"| {len(found.disagreements)} | DISAGREE |")
    for text in found.disagreements[:MOST_SHOWN]:
        print(f"\n    {text}")


def measure(options: argparse.Namespace, deployment: Deployment) -> bool:
    run = f"b{uuid4().hex[:10]}"
    began = time.monotonic()
    outcomes, killer = asyncio.run(load(options, deployment, run))
    say(f"{len(outcomes)} requests in {time.monotonic() - began:.0f} s; waiting until the books are at rest")
    balance = at_rest(deployment)
    gaps = deployment.tap("/api/ledger/gaps")["gaps"]
    books = entries(deployment, run)
    # An edge's name begins with its container's host name.
    edges = {container[:12] for service, container in killer.killed if service == "edge"}
    found = reconcile([Told(o.key, o.status, o.reason) for o in outcomes], books, edges)
    report(outcomes, books, balance, found)
    kills = Counter(service for service, _ in killer.killed)
    agrees = found.agrees and not balance["total"]["open"]
    print(
        f"\nkilled: {_listed(kills)}\n\nclients and books {'agree to the last request' if agrees else 'DO NOT AGREE'}\n"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    said = {
        "requests": len(outcomes),
        "killed": kills,
        "balance": balance,
        "gaps": gaps,
        "kinds": found.kinds,
        "disagreements": found.disagreements,
    }
    (options.out / "books.json").write_text(json.dumps(said, indent=1) + "\n")
    say(f"books.json is in {options.out}")
    return agrees


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{name}: {number}" for name, number in counted.most_common()) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="at most 1,000,000")
    parser.add_argument("--rate", type=float, default=200, help="requests per second")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--edges", type=int, default=3)
    parser.add_argument("--workers-killed", type=int, default=6, help="how many times a worker is killed")
    parser.add_argument("--edges-killed", type=int, default=4)
    parser.add_argument("--taps-killed", type=int, default=3)
    parser.add_argument("--down", type=float, default=2, help="seconds until what was killed is started again")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "books", help="directory of what is written")
    parser.add_argument("--build", action="store_true", help="build the images first")
    options = parser.parse_args()
    if not 1 <= options.requests <= 1_000_000 or options.edges < 2:
        parser.error("at least one request, a million at most, and two edges")
    try:
        with own((), {"worker": options.workers, "edge": options.edges}, TABLE, build=options.build) as deployment:
            good = measure(options, deployment)
    except Unmeasurable as error:
        sys.exit(f"books: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(not good)


if __name__ == "__main__":
    main()
