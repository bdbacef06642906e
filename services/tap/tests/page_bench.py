"""The page's own parts and server under a made-up stream of messages, without a broker: more requests in a second than
this machine could serve, and every kind of ending.

    PYTHONPATH=wire:services/runtime:services/tap python services/tap/tests/page_bench.py --rate 1000 --seconds 600
"""

import argparse
import asyncio
import heapq
import random
import sys
import time
from secrets import token_hex
from typing import Any

import uvloop

from rabbitbal.tap import web
from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.dashboard import Dashboard
from rabbitbal.tap.observation import Observation, Part, observe
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.message import Request, Response, encode_request, encode_response
from rabbitbal.wire.reasons import Reason, status_of

STEP = 0.02
TARGETS = ("/", "/catalog/42?colour=red", "/catalog", "/reports/2026/11?format=csv", "/cart", "/login", "/static/a.css")
POOLS = {"default": 24, "reports": 6, "search": 8}
WORKERS = tuple(f"{token_hex(6)}-{token_hex(3)}" for _ in range(8))


class Traffic:
    """Requests and their endings, in the order of their time. Seeded."""

    def __init__(self, rate: float, seed: int) -> None:
        self._rate = rate
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Envelope, bytes]] = []
        self._number = 0
        self._next = time.time()

    def until(self, now: float) -> list[tuple[Envelope, bytes]]:
        while self._next < now:
            self._request(self._next)
            self._next += self._random.expovariate(self._rate)
        found = []
        while self._due and self._due[0][0] <= now:
            _, _, envelope, payload = heapq.heappop(self._due)
            found.append((envelope, payload))
        return found

    def _add(self, at: float, kind: Kind, name: str, app: str, payload: bytes = b"", **more: Any) -> None:
        self._number += 1
        heapq.heappush(self._due, (at, self._number, Envelope(kind, name, app, sent=int(at * 1000), **more), payload))

    def _request(self, at: float) -> None:
        pick, name = self._random, token_hex(16)
        target = pick.choice(TARGETS).encode()
        pool = "reports" if target.startswith(b"/reports") else pick.choice(("default", "default", "search"))
        fields = [(b"Host", b"example.org"), (b"X-Forwarded-For", b"203.0.113.%d" % pick.randrange(1, 250))]
        request = encode_request(Request(pick.choice(("GET", "GET", "GET", "POST")), target, fields, b""))
        self._add(at, Kind.REQUEST, name, "edge-1", request, reply_to="response.edge-1", route=pool)
        worker, lot = pick.choice(WORKERS), pick.random()
        wait, app = pick.expovariate(1 / 0.002), pick.lognormvariate(-4.2, 0.8)
        if lot < 0.004:
            reason = pick.choice((Reason.WORKER_TIMEOUT, Reason.QUEUE_TIMEOUT, Reason.CLIENT_GONE, Reason.OVERLOADED))
            self._add(at + wait + app, Kind.ENDED, name, "edge-1", status=status_of(reason), reason=reason, pool=pool)
            return
        attempt, start = 1, at + wait
        if lot < 0.01:
            self._add(start + 0.05, Kind.CLAIM, name, worker)
            self._add(start + 0.4, Kind.REDELIVERED, name, pick.choice(WORKERS))
            start, attempt, worker = start + 0.41, 2, pick.choice(WORKERS)
            again: dict[str, Any] = {"reply_to": "response.edge-1", "route": pool, "attempt": 2}
            self._add(start - 0.005, Kind.REQUEST, name, "edge-1", request, **again)
        status = pick.choices((200, 201, 304, 302, 404, 500), (80, 6, 6, 3, 4, 0.4))[0]
        answer = encode_response(Response(status, [], b"" if status == 304 else b"x" * pick.randrange(2000)))
        known: dict[str, Any] = {"pool": pool, "duration": int(app * 1e6), "attempt": attempt}
        self._add(start + app, Kind.RESPONSE, name, worker, answer, **known)


def panels(pick: random.Random) -> dict[str, Any]:
    """Made-up figures of others, in the shapes that the page reads."""

    def fleet() -> dict[str, Any]:
        def pools() -> dict[str, Any]:
            return {name: {"slots": n // 3, "running": pick.randrange(n // 3 + 1)} for name, n in POOLS.items()}

        workers: list[dict[str, Any]] = [
            {"id": name, "drained": False, "streams": 0, "pools": pools()} for name in sorted(WORKERS)
        ]
        sums = {
            name: {what: sum(w["pools"][name][what] for w in workers) for what in ("slots", "running")}
            for name in POOLS
        }
        edges = [{"id": "edge-1", "pending": pick.randrange(40)}]
        return {"workers": workers, "more": 0, "edges": edges, "pools": sums}

    return {
        "fleet": (fleet, 1.0),
        "queues": (lambda: {"pools": {name: pick.randrange(9) for name in POOLS}}, 1.0),
        "autoscale": (lambda: {"pools": dict.fromkeys(POOLS, 3)}, 2.0),
        "books": (lambda: {"rows": [["balance", "0", "at rest", "good"], ["open", str(pick.randrange(40))]]}, 1.0),
        "suspects": (lambda: {"rows": [["203.0.113.66", "bot", "probes /wp-login.php", "failed"]]}, 2.0),
    }


class Lines:
    """What the journal does, without writing."""

    def __init__(self) -> None:
        self._access = AccessLog(50_000, Redactor())

    def see(self, seen: Observation) -> None:
        seen.line = self._access.see(seen)


async def main(options: argparse.Namespace) -> None:
    dashboard = Dashboard("bench", options.stories, panels(random.Random(1)), lambda: {"connected": True})
    parts: list[Part] = [Lines(), *dashboard.parts]
    server = web.Server(web.build(dashboard.routers()), "127.0.0.1", options.port)
    serving = asyncio.create_task(server.serve())
    print(f"http://127.0.0.1:{options.port}/", file=sys.stderr, flush=True)
    traffic, end = Traffic(options.rate, 1) if options.rate else None, time.time() + options.seconds
    while time.time() < end and not serving.done():
        now = time.time()
        for envelope, payload in traffic.until(now) if traffic else ():
            seen = observe(time.time(), envelope, payload, None, redelivered=False)
            for part in parts:
                part.see(seen)
        await asyncio.sleep(max(0.001, STEP - (time.time() - now)))
    dashboard.close()
    server.should_exit = True
    await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests in a second; 0 for none (default 1000)")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--stories", type=int, default=5000)
    uvloop.run(main(parser.parse_args()))
