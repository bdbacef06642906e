"""Capacity is moved between two URIs under a steady load, three times, and the picture of it.

    python loadtests/shift.py

A deployment of its own (compose/pools.yml) has a large and a small pool. Locust asks for /catalog and /reports at the
same rate. Each shift swaps their pools with the operator's command: first the URI in the small pool joins the large
one, then the other goes to the small one. Every second request is a POST. The exit status is 1 if any request failed,
ran twice, or answered without a run.
"""

# Locust changes the standard library's sockets and processes to its own, so it comes first.
import locust.env  # isort: skip
import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import gevent

from scenarios.shifting import Steady, steady
from streaming.memory import Unmeasurable
from trial.deployment import ROOT, Deployment, own, say
from trial.picture import draw
from trial.shifts import Move, Record, books, report, summary

OVERLAY = "compose/pools.yml"
GROUPS = ("worker", "worker-reports", "worker-flex")
LARGE, SMALL = "default", "reports"
URIS = ("catalog", "reports")
# Locust's users are started, and connections opened, before the load counts.
SPAWN_RATE = 100


@contextmanager
def deployment(options: argparse.Namespace) -> Iterator[Deployment]:
    if options.project:
        yield Deployment(options.project, (OVERLAY,), GROUPS)
        return
    scale = {"worker": options.workers, "worker-reports": options.reports, "worker-flex": options.flex}
    table = (ROOT / "compose/pools/routes/routes.yaml").read_text()
    with own((OVERLAY,), scale, table, build=options.build) as found:
        yield found


def place(target: Deployment, key: str, pool: str) -> Move:
    """Lead a key to a pool."""
    asked = time.time()
    told = target.operate("pools", "move", key, pool)
    origin = ", ".join(told["from"])
    return Move(key, origin, told["to"], told["at"], (told["gap_ms"] or 0.0) / 1000, asked)


def swap(target: Deployment, where: dict[str, str]) -> list[Move]:
    """The URI in the small pool first: at no time are both there. ``where`` is changed."""
    moves = []
    for key in sorted(where, key=lambda key: where[key] != SMALL):
        pool = LARGE if where[key] == SMALL else SMALL
        moves.append(place(target, key, pool))
        where[key] = pool
        say(f"{key} → {pool}: it led nowhere for {moves[-1].gap * 1000:.1f} ms")
    return moves


def load(options: argparse.Namespace, target: Deployment, run: str) -> tuple[list[Record], list[Move], float]:
    """Records, moves, and when the load began."""
    begin = time.time() + options.users * len(URIS) / SPAWN_RATE + 1
    settings = {
        "ms": options.ms,
        "run_name": run,
        "seed": options.seed,
        "period": options.users / options.rate,
        "until": begin + options.seconds,
        "fixed_count": options.users,
    }
    users: list[type[Steady]] = [steady(uri, **settings) for uri in URIS]
    environment = locust.env.Environment(user_classes=[*users], host=target.url)
    runner = environment.create_local_runner()
    where = {"catalog": LARGE, "reports": SMALL}
    moves: list[Move] = []
    runner.start(options.users * len(URIS), spawn_rate=SPAWN_RATE)
    try:
        for number in range(options.shifts):
            at = begin + options.seconds * (number + 1) / (options.shifts + 1)
            wait(at, users, begin)
            say(f"shift {number + 1} of {options.shifts}")
            moves += swap(target, where)
        wait(begin + options.seconds, users, begin)
        drained(environment, begin + options.seconds + options.patience)
    finally:
        runner.quit()
        if options.project and where["catalog"] != LARGE:
            say("back to where the keys were")
            swap(target, where)
    return [record for each in users for record in each.records], moves, begin


def wait(until: float, users: list[type[Steady]], begin: float) -> None:
    while (left := until - time.time()) > 0:
        gevent.sleep(min(left, 5))
        counts = ", ".join(f"/{each.uri} {len(each.records)}" for each in users)
        failed = sum(not record.good for each in users for record in each.records)
        say(f"{max(time.time() - begin, 0):4.0f} s: {counts}, failed {failed}")


def drained(environment: locust.env.Environment, until: float) -> None:
    """Wait for the answers that are still to come: until nobody has asked or been answered for a second."""
    seen = -1
    while time.time() < until and seen != environment.stats.total.num_requests:
        seen = environment.stats.total.num_requests
        gevent.sleep(1.5)


def prepare(target: Deployment) -> None:
    """Raises Unmeasurable where the keys are not where the scenario begins."""
    pools = {pool["pool"]: pool for pool in target.operate("pools", "list")["pools"]}
    for key, pool in (("catalog", LARGE), ("reports", SMALL)):
        if key not in pools.get(pool, {"bindings": []})["bindings"]:
            raise Unmeasurable(f"{key} must lead to {pool} at first: rabbitbal pools move {key} {pool}")
    sizes = ", ".join(f"{name}: {pool['workers']} workers, {pool['slots']} slots" for name, pool in pools.items())
    say(f"pools: {sizes}")


def measured(options: argparse.Namespace) -> bool:
    run = f"s{uuid4().hex[:10]}"
    with deployment(options) as target:
        prepare(target)
        records, moves, begin = load(options, target, run)
        if not any(record.pool for record in records):
            raise Unmeasurable("responses do not name their pool: start the deployment with RABBITBAL_EXPOSE_WORKER=1")
        kept = books(records, target.runs(run))
    told = summary(records, moves, kept, begin, options.seconds, options.window)
    told["options"] = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "shift.json").write_text(json.dumps(told, indent=1) + "\n")
    title = f"{options.rate:g} requests of {options.ms} ms per second and URI; pools swapped {options.shifts} times"
    draw(told, title, options.out / "shift.svg", options.out / "shift.png")
    print(report(told))
    say(f"shift.json, shift.svg and shift.png are in {options.out}")
    late = sum(record.ended > begin + options.seconds + options.patience for record in records)
    return kept.balanced and not late and len(moves) == 2 * options.shifts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="length of the load")
    parser.add_argument("--rate", type=float, default=34, help="requests per second, of each URI")
    parser.add_argument("--ms", type=int, default=100, help="milliseconds that a request holds a slot")
    parser.add_argument("--users", type=int, default=140, help="locust's users, of each URI")
    parser.add_argument("--shifts", type=int, default=3, help="how often the pools are swapped")
    parser.add_argument("--workers", type=int, default=2, help="workers of the large pool, four slots each")
    parser.add_argument("--reports", type=int, default=2, help="workers of the small pool, two slots each")
    parser.add_argument("--flex", type=int, default=0, help="workers that spill over from the small into the large one")
    parser.add_argument("--window", type=float, default=3, help="seconds that a point of the picture stands for")
    parser.add_argument("--patience", type=float, default=30, help="seconds to wait for the last answers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "shift", help="directory of what is written")
    parser.add_argument("--project", default="", help="use this compose project, which runs with compose/pools.yml")
    parser.add_argument("--build", action="store_true", help="build the images first")
    options = parser.parse_args()
    try:
        good = measured(options)
    except Unmeasurable as error:
        sys.exit(f"shift: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(not good)


if __name__ == "__main__":
    main()
