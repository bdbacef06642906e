"""One request to several pools, measured: what `first` and a hedge are worth, and what `all` answers.

    python loadtests/copies.py
    python loadtests/copies.py hedge --rate 60

first   two pools, one of them frozen (docker pause) for a while in each round: `first` over both beside `one` in the
        pool that is well, and beside `one` with half of the requests in each
hedge   eight workers of one slot, one of them ten times slower: with a budget of 3 %, and without hedges
all     three pools, one without workers: the multipart answer, printed and checked

Arrivals are seeded and open: they wait for no answer. Variants take turns within each round of one run, so that all
feel the same noise. The exit status is 1 where a promise was not kept.
"""

import argparse
import asyncio
import email
import email.policy
import http.client
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from streaming.memory import Unmeasurable
from trial.deployment import ROOT, Deployment, own, say
from trial.figures import latencies, table
from trial.load import Answer, Load, arrivals

OVERLAY = "loadtests/copies.yml"
SCALE = {"worker": 7, "worker-slow": 1, "worker-north": 1, "worker-south": 1, "worker-east": 1}
# What a bucket of tokens has saved up may be spent at once.
SAVED = 10
TABLE = """\
version: 1
routes:
  - { name: north, match: { headers: { X-Mode: north } } }
  - { name: south, match: { headers: { X-Mode: south } }, timeout: 3s }
  - { name: first, match: { headers: { X-Mode: first } }, mode: first, to: [north, south] }
  - { name: all, match: { headers: { X-Mode: all } }, mode: all, to: [north, south, east], timeout: 2s }
  - { name: hedged, match: { headers: { X-Mode: hedged } }, to: default, hedge: { budget: BUDGET, after: p95 } }
  - { name: default }
"""


class Measurement:
    """Loads of one run, each with a seed of its own."""

    def __init__(self, options: argparse.Namespace, deployment: Deployment) -> None:
        self.options = options
        self.deployment = deployment
        self.run = f"c{uuid4().hex[:10]}"
        self._load = Load(deployment.url)
        self._loads = 0

    async def load(self, name: str, seconds: float, *modes: str) -> list[Answer]:
        """Requests in these modes in turn, at the rate that was asked for."""
        self._loads += 1
        prefix = f"{self.run}-{name.replace(' ', '_')}-{self._loads}"
        due = arrivals(self.options.rate, seconds, self.options.seed * 1000 + self._loads)

        def target(number: int) -> tuple[str, str, str]:
            key = f"{prefix}-{number}"
            return f"/work?ms={self.options.ms}&key={key}", key, f"X-Mode: {modes[number % len(modes)]}\r\n"

        return await self._load.run(due, target)


async def first(measured: Measurement) -> tuple[bool, dict[str, Any]]:
    """`first` beside `one`, with both pools well and with one frozen."""
    options, deployment = measured.options, measured.deployment
    variants = {"first": ("first",), "one, north": ("north",), "one, half of it south": ("north", "south")}
    cells: dict[str, list[Answer]] = defaultdict(list)
    frozen = deployment.containers("worker-south")
    await measured.load("warm", 2, "first", "north", "south")
    for number in range(options.rounds):
        for state in ("both well", "south frozen"):
            if state == "south frozen":
                _docker("pause", *frozen)
            try:
                for name in _turned(list(variants), number):
                    cells[f"{name}; {state}"] += await measured.load(name, options.frozen, *variants[name])
            finally:
                if state == "south frozen":
                    _docker("unpause", *frozen)
        deployment.empty("pool.south")
        say(f"first: round {number + 1} of {options.rounds}")
    told = latencies(dict(sorted(cells.items(), key=lambda cell: cell[0].split("; ")[::-1])))
    print(f"### first\n\n{options.rate:g} requests of {options.ms} ms per second\n\n{table('variant', told)}\n")
    # With half of them in the frozen pool requests fail: that is what the others are compared with.
    return all(not row["failed"] for name, row in told.items() if "half" not in name or "well" in name), told


async def hedge(measured: Measurement) -> tuple[bool, dict[str, Any]]:
    """With and without."""
    options, deployment = measured.options, measured.deployment
    variants = {"without": "default", "with": "hedged"}
    cells: dict[str, list[Answer]] = defaultdict(list)
    say("hedge: the edge learns what is late")
    await measured.load("warm", 5, "hedged")
    before = deployment.ask("stats")["copies"]["hedges"]
    for number in range(options.rounds):
        for name in _turned(list(variants), number):
            cells[name] += await measured.load(name, options.seconds, variants[name])
        say(f"hedge: round {number + 1} of {options.rounds}")
    after = deployment.ask("stats")["copies"]["hedges"]
    spent = {name: after[name] - before[name] for name in ("requests", "sent", "won", "refused")}
    runs = deployment.runs(measured.run)
    started = sum(runs[answer.key] for answer in cells["with"])
    told: dict[str, Any] = latencies(cells)
    share = spent["sent"] / max(spent["requests"], 1)
    told["with"]["hedges"] = spent | {
        "share": round(share, 4),
        "late_ms": round(1000 * (after["late_seconds"].get("hedged") or 0), 1),
        "runs": started,
    }
    slots = f"8 workers of one slot, one of them {options.slowness:g} times slower"
    print(
        f"### hedge\n\n{slots}; {options.rate:g} requests of {options.ms} ms per second\n\n{table('hedge', told)}\n\n"
        f"hedges sent {spent['sent']} of {spent['requests']} requests: {100 * share:.2f} % (budget "
        f"{100 * options.budget:g} %), quicker {spent['won']}, no budget {spent['refused']}; started in all {started}; "
        f"late at last: {told['with']['hedges']['late_ms']:.0f} ms\n"
    )
    within = spent["sent"] <= options.budget * spent["requests"] + SAVED
    return within and not told["with"]["failed"] and not told["without"]["failed"], told


async def gather(measured: Measurement) -> tuple[bool, dict[str, Any]]:
    """`all` with the pool east dead."""
    measured.deployment.compose("stop", "--timeout", "1", "worker-east")
    parts = urlsplit(measured.deployment.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request("GET", f"/work?ms={measured.options.ms}", headers={"X-Mode": "all"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    kind, missing = answer.headers.get("Content-Type", ""), answer.headers.get("Rabbitbal-Failed")
    print(f"### all\n\n```http\nHTTP/1.1 {answer.status} {answer.reason}")
    print("\n".join(f"{name}: {value}" for name, value in answer.headers.items()))
    print(f"\n{body.decode('utf-8', 'replace').replace(chr(13), '')}```\n")
    found = parts_of(kind, body)
    good = (answer.status, missing, found) == (200, "east", [("north", 200, None), ("south", 200, None), EAST])
    return good, {"status": answer.status, "failed": missing, "parts": found}


EAST = ("east", 504, "queue-timeout")


def parts_of(content_type: str, body: bytes) -> list[tuple[str, int, str | None]]:
    """Key, status and reason of each part, as a mail program would read it; status 0 where a part is no response."""
    message = email.message_from_bytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body, policy=email.policy.HTTP
    )
    if not message.is_multipart() or message.defects:
        return []
    found = []
    for part in message.iter_parts():
        payload = part.get_payload(decode=True)
        words = payload.split(b" ", 2) if isinstance(payload, bytes) else []
        status = int(words[1]) if len(words) == 3 and words[0] == b"HTTP/1.1" and words[1].isdigit() else 0
        found.append((str(part["Rabbitbal-Key"]), status, part["Rabbitbal-Error"]))
    return found


def _turned(names: list[str], number: int) -> list[str]:
    """Each round begins with another one."""
    start = number % len(names)
    return names[start:] + names[:start]


def _docker(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], check=True, stdout=subprocess.DEVNULL)


PARTS = {"first": first, "hedge": hedge, "all": gather}


async def measure(options: argparse.Namespace, deployment: Deployment) -> bool:
    measured, good, told = Measurement(options, deployment), True, {}
    for name in options.parts or PARTS:
        kept, told[name] = await PARTS[name](measured)
        if not kept:
            say(f"{name}: NOT as promised")
        good &= kept
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "copies.json").write_text(json.dumps(told, indent=1) + "\n")
    say(f"copies.json is in {options.out}")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[[], *PARTS],
        default=[],
        metavar="PART",
        help=f"{', '.join(PARTS)}; all unless named",
    )
    parser.add_argument("--rate", type=float, default=40, help="requests per second")
    parser.add_argument("--ms", type=int, default=100, help="milliseconds that a request holds a slot")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10, help="of each variant in a round (hedge)")
    parser.add_argument("--frozen", type=float, default=3, help="of each variant in a round (first), at most 3")
    parser.add_argument("--budget", type=float, default=0.03, help="share of the requests that may be hedged")
    parser.add_argument("--slowness", type=float, default=10, help="of one worker in eight")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "copies", help="directory of what is written")
    parser.add_argument("--build", action="store_true", help="build the images first")
    options = parser.parse_args()
    # A broker gives up a worker that has been frozen for two heartbeats; what is measured is the time before.
    options.frozen = min(options.frozen, 3)
    settings = {"DEMO_SLOWNESS": f"{options.slowness:g}"}
    try:
        with own(
            (OVERLAY,), SCALE, TABLE.replace("BUDGET", f"{options.budget:g}"), settings, build=options.build
        ) as it:
            good = asyncio.run(measure(options, it))
    except Unmeasurable as error:
        sys.exit(f"copies: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(not good)


if __name__ == "__main__":
    main()
