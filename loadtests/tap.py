"""What the tap costs clients, whatever becomes of it: latencies and failures beside no tap at all.

    python loadtests/tap.py
    python loadtests/tap.py running frozen --rounds 2 --seconds 5

none      no tap, and no queue that gets copies: it is deleted
running   the tap as it is
stopped   its queue fills
frozen    docker pause: it has messages that it never acknowledges, and its queue fills
slow      it has a twentieth of a processor
full      stopped, with its queue full to the last place before the load begins: each copy drops the oldest

First the full load is found, with clients that ask again at once. Then arrivals are seeded and open at a share of
that; they wait for no answer. Variants take turns within each round of one run, so that all feel
the same noise, and each is compared with `none` of its own round. The exit status is 1 if anything failed.
"""

import argparse
import asyncio
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streaming.memory import Unmeasurable
from trial.deployment import ROOT, Deployment, docker, healthy, own, say
from trial.figures import beside, latencies, ratio_table, table
from trial.load import Answer, Load, arrivals

BASE = "none"
QUEUE = "tap.log"
TARGET = "/bytes/100"
TABLE = "version: 1\nroutes:\n  - { name: default }\n"
# Messages that may be left of the variant before.
REST = 200
RATIOS = ("p50", "p99")


class States:
    """What may become of the tap: each is a context, and after it the tap runs with an empty queue."""

    def __init__(self, deployment: Deployment, fill: Callable[[int], None]) -> None:
        self._deployment = deployment
        self._fill = fill
        self.limit = length(deployment.rabbitmqctl("list_queues", "name", "arguments"), QUEUE)

    @contextmanager
    def none(self) -> Iterator[None]:
        self._stop()
        # Its bindings go with it.
        self._deployment.rabbitmqctl("delete_queue", QUEUE)
        try:
            yield
        finally:
            self._deployment.compose("run", "--rm", "--no-deps", "-T", "topology")
            self._run()

    @contextmanager
    def running(self) -> Iterator[None]:
        yield

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self._stop()
        try:
            yield
        finally:
            self._run()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        (tap,) = self._deployment.containers("tap")
        docker("pause", tap)
        try:
            yield
        finally:
            docker("unpause", tap)
            self._run()

    @contextmanager
    def slow(self) -> Iterator[None]:
        (tap,) = self._deployment.containers("tap")
        docker("update", "--cpu-period", "100000", "--cpu-quota", "5000", tap)
        try:
            yield
        finally:
            docker("update", "--cpu-quota", "-1", tap)
            self._run()

    @contextmanager
    def full(self) -> Iterator[None]:
        self._stop()
        self._fill(self.limit)
        try:
            yield
            # It was full all the time.
            if (left := self.waiting()) < self.limit:
                raise Unmeasurable(f"the tap's queue has {left} messages, and not {self.limit}")
        finally:
            self._run()

    def waiting(self) -> int:
        return self._deployment.queues().get(QUEUE, 0)

    def _stop(self) -> None:
        self._deployment.compose("stop", "--timeout", "10", "tap")

    def _run(self) -> None:
        """With nothing left to read."""
        deployment = self._deployment
        deployment.rabbitmqctl("purge_queue", QUEUE)
        deployment.compose("start", "tap")
        deployment.until(lambda: deployment.consumers(QUEUE), "the tap reads its queue")
        (tap,) = deployment.containers("tap")
        deployment.until(lambda: healthy(tap), "the tap is healthy")
        # What a frozen or slow tap had taken comes again.
        deployment.until(lambda: self.waiting() <= REST, "the tap has read its queue")


VARIANTS = ("none", "running", "stopped", "frozen", "slow", "full")


def measure(options: argparse.Namespace, deployment: Deployment) -> bool:
    url = deployment.url

    def closed(seconds: float) -> tuple[float, int]:
        return asyncio.run(Load(url).full(seconds, options.clients, TARGET))

    def opened(due: list[float]) -> list[Answer]:
        return asyncio.run(Load(url).run(due, lambda number: (TARGET, str(number), "")))

    def fill(limit: int) -> None:
        deployment.until(lambda: (closed(3), states.waiting())[1] >= limit, "the tap's queue is full", 300)

    states = States(deployment, fill)
    closed(2)
    most, bad = closed(options.probe)
    rate = options.rate or most * options.share
    say(f"full load: {most:.0f} requests/s with {options.clients} clients; measured at {rate:.0f} requests/s")
    cells: dict[str, list[list[Answer]]] = defaultdict(list)
    left: dict[str, int] = defaultdict(int)
    names = [BASE, *(name for name in options.variants or VARIANTS if name != BASE)]
    for number in range(options.rounds):
        for position, name in enumerate(turned(names, number)):
            state: AbstractContextManager[None] = getattr(states, name)()
            with state:
                seed = options.seed * 10_000 + number * 100 + position
                # A tap, a container that stops and a queue that is filled leave the processors busy for a while.
                opened(arrivals(rate, options.warm, seed))
                cells[name].append(opened(arrivals(rate, options.seconds, seed)))
                left[name] = max(left[name], states.waiting())
            failed = sum(not answer.good for answer in cells[name][-1])
            say(f"round {number + 1} of {options.rounds}: {name}, {failed} failed")
    told: dict[str, Any] = latencies({name: [a for each in cells[name] for a in each] for name in names})
    ratios = beside(cells, BASE, RATIOS)
    print(f"### The tap\n\nfull load {most:.0f} requests/s ({options.clients} clients), measured at {rate:.0f}\n")
    print(f"{table('tap', told)}\n\n{ratio_table(f'tap, beside {BASE}', ratios)}\n")
    print(f"most messages left in its queue: {', '.join(f'{name} {number}' for name, number in left.items())}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    said = {
        "full_load": round(most, 1),
        "rate": round(rate, 1),
        "latencies": told,
        "ratios": {name: {share: asdict(r) for share, r in row.items()} for name, row in ratios.items()},
    }
    (options.out / "tap.json").write_text(json.dumps(said, indent=1) + "\n")
    say(f"tap.json is in {options.out}")
    return not bad and not any(row["failed"] for row in told.values())


def length(listing: str, queue: str) -> int:
    """Messages that a queue holds at most, by `rabbitmqctl list_queues name arguments`. Raises Unmeasurable."""
    row = next((line for line in listing.splitlines() if line.startswith(f"{queue}\t")), "")
    found = re.search(r'"x-max-length"\D+([0-9]+)', row)
    if found is None:
        raise Unmeasurable(f"the broker names no length of {queue}: {row!r}")
    return int(found[1])


def turned(names: list[str], number: int) -> list[str]:
    """Each round begins with another one."""
    start = number % len(names)
    return names[start:] + names[:start]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "variants",
        nargs="*",
        choices=[[], *VARIANTS],
        default=[],
        metavar="VARIANT",
        help=f"{', '.join(VARIANTS)}; all unless named, and none always",
    )
    parser.add_argument("--rate", type=float, default=0, help="requests per second; a share of the full load if 0")
    parser.add_argument("--share", type=float, default=0.7, help="of the full load")
    parser.add_argument("--clients", type=int, default=32, help="at once, to find the full load and to fill the queue")
    parser.add_argument("--probe", type=float, default=8, help="seconds to find the full load")
    parser.add_argument("--seconds", type=float, default=15, help="of each variant in a round, at most 120")
    parser.add_argument("--warm", type=float, default=4, help="seconds of the same load before, which do not count")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "tap", help="directory of what is written")
    parser.add_argument("--build", action="store_true", help="build the images first")
    options = parser.parse_args()
    options.seconds = min(options.seconds, 120)
    try:
        with own((), {"worker": options.workers}, TABLE, build=options.build) as deployment:
            good = measure(options, deployment)
    except Unmeasurable as error:
        sys.exit(f"tap: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(not good)


if __name__ == "__main__":
    main()
