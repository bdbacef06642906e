"""What a request costs the edge with a table of one route and with one of a thousand, in processor time.

    python loadtests/routing.py

The request matches the last but one of the routes, all of which are prefixes. The table is changed by its file while
the edge runs, in turns within each round of one run, so that both feel the same noise. Processor time is that of the
edge's container, by its cgroup, less what it uses while nobody asks. The exit status is 1 if a request failed, or if
the ratio is above --most.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from streaming.memory import Unmeasurable
from trial.cpu import Processor
from trial.deployment import ROOT, Deployment, own, say
from trial.figures import ratio
from trial.load import Load, arrivals

SCALE = {"worker": 2}
# A table is read, checked and built; that is not what a request costs.
SETTLE = 1.5
# The request's path; the prefix of the one route that it matches.
MATCHED = "/work"


def table(routes: int) -> str:
    """So many routes with prefixes, the last but one of them that of the request, and the one for everything else. Of
    one route there is only the last."""
    lines = ["version: 1", "routes:"]
    for number in range(1, routes):
        path = MATCHED if number == routes - 1 else f"/section-{number % 40}/page-{number}"
        lines.append(f"  - {{ name: route-{number}, match: {{ path: {path} }}, to: default }}")
    return "\n".join([*lines, "  - { name: default }", ""])


async def cost(
    options: argparse.Namespace, load: Load, processor: Processor, name: str, seed: int
) -> tuple[float, dict[str, int], set[str]]:
    """Seconds of each request, what failed, and the routes that the edge named."""
    due = arrivals(options.rate, options.seconds, seed)
    idle_from, idle_at = processor.seconds(), time.monotonic()
    await asyncio.sleep(options.idle)
    idle = (processor.seconds() - idle_from) / (time.monotonic() - idle_at)
    before, began = processor.seconds(), time.monotonic()
    answers = await load.run(due, lambda number: (f"{MATCHED}?ms=0&key={name}-{number}", f"{name}-{number}", ""))
    used = processor.seconds() - before - idle * (time.monotonic() - began)
    failed: dict[str, int] = {}
    for answer in answers:
        if not answer.good:
            text = f"{answer.status} {answer.reason}".strip()
            failed[text] = failed.get(text, 0) + 1
    return used / len(answers), failed, {answer.route for answer in answers}


async def measure(options: argparse.Namespace, deployment: Deployment) -> bool:
    sizes = (1, options.routes)
    (edge,) = deployment.containers("edge")
    processor, load, run = Processor(edge), Load(deployment.url), f"r{uuid4().hex[:10]}"
    costs: dict[int, list[float]] = {size: [] for size in sizes}
    failed: dict[str, int] = {}
    for number in range(options.rounds + 1):
        for size in sizes if number % 2 else sizes[::-1]:
            deployment.table(table(size))
            await asyncio.sleep(SETTLE)
            spent, missed, routes = await cost(
                options, load, processor, f"{run}-{number}-{size}", options.seed * 1000 + number
            )
            wanted = "default" if size == 1 else f"route-{size - 1}"
            if routes != {wanted}:
                raise Unmeasurable(f"requests matched {', '.join(sorted(routes))}, not {wanted}")
            failed |= missed
            # The first round warms up.
            if number:
                costs[size].append(spent)
            say(f"round {number} of {options.rounds}: {size} routes, {spent * 1e6:.0f} µs a request")
    found = ratio(costs[options.routes], costs[1])
    print(report(options, costs, asdict(found), failed))
    told: dict[str, Any] = {"seconds": {str(k): v for k, v in costs.items()}, "ratio": asdict(found), "failed": failed}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "routing.json").write_text(json.dumps(told, indent=1) + "\n")
    say(f"routing.json is in {options.out}")
    return not failed and found.median <= options.most


def report(
    options: argparse.Namespace, costs: dict[int, list[float]], found: dict[str, float], failed: dict[str, int]
) -> str:
    """Markdown."""
    lines = [
        "| routes | µs of the edge's processor a request, median | least | most |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for size, values in costs.items():
        micro = [1e6 * value for value in (statistics.median(values), min(values), max(values))]
        lines.append(f"| {size} | {' | '.join(f'{value:.0f}' for value in micro)} |")
    what = f"{options.rounds} rounds of {options.seconds:g} s at {options.rate:g} requests per second"
    said = f"ratio of the rounds: median {found['median']:.3f}, from {found['least']:.3f} to {found['most']:.3f}"
    return "\n".join([*lines, "", f"{what}; {said}; failed {sum(failed.values())}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", type=int, default=1000, help="of the large table, at least 2")
    parser.add_argument("--rate", type=float, default=100, help="requests per second")
    parser.add_argument("--seconds", type=float, default=8, help="of each table in a round")
    parser.add_argument("--idle", type=float, default=2, help="seconds without requests before each, to be subtracted")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--most", type=float, default=1.10, help="the ratio that is still as promised")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "routing", help="directory of what is written")
    parser.add_argument("--build", action="store_true", help="build the images first")
    options = parser.parse_args()
    if options.routes < 2:
        parser.error("--routes must be 2 or more")
    try:
        with own((), SCALE, table(1), build=options.build) as deployment:
            good = asyncio.run(measure(options, deployment))
    except Unmeasurable as error:
        sys.exit(f"routing: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(not good)


if __name__ == "__main__":
    main()
