"""What looking for bots costs the tap: time for each request, time for each judgement, bytes for each client.

python loadtests/bots/cost.py
"""

import sys
import time
import tracemalloc
from collections.abc import Callable
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parents[2]
for folder in ("wire", "services/runtime", "services/tap", "loadtests"):
    sys.path.insert(0, str(ROOT / folder))

from bots.labelled import BEGAN, LASTING, THRESHOLD, WINDOW, observations  # noqa: E402 - found by the lines above
from rabbitbal.tap.access_log import AccessLog  # noqa: E402
from rabbitbal.tap.bots.scorer import Scorer  # noqa: E402
from rabbitbal.tap.bots.watcher import Watcher  # noqa: E402
from rabbitbal.tap.observation import Observation  # noqa: E402
from rabbitbal.tap.redaction import Redactor  # noqa: E402

CLIENTS, REQUESTS = 20_000, 100_000
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
ROBOTS = b"User-agent: *\n" + b"".join(b"Disallow: /p%d/\n" % number for number in range(20))


def messages(clients: int, requests: int, *, browser: bool) -> list[Observation]:
    """A request and an answer for each, with the lines that the journal makes of them."""
    access, found, ids = AccessLog(50_000, Redactor()), [], count()
    for number in range(requests):
        line = {
            "t": number / 1000,
            "c": f"10.{number % clients >> 16}.{number % clients >> 8 & 255}.{number % clients & 255}",
            "m": "GET",
            "p": f"/articles/{number % 997}?page={number}",
            "s": 200 if browser else 404,
            "y": "text/html",
            "h": ["accept", "accept-language", "accept-encoding"] if browser else [],
            "a": AGENT if browser else "python-requests/2.32",
            "r": browser,
        }
        for seen in observations(line, next(ids), b""):
            seen.line = access.see(seen)
            found.append(seen)
    return found


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    for name, browser in (("a browser's", True), ("a script's", False)):
        seen = messages(CLIENTS, REQUESTS, browser=browser)
        watcher = Watcher(Scorer(CLIENTS, WINDOW, THRESHOLD, LASTING))
        watcher.robots.learn("site.test", 200, ROBOTS)

        def feed(watcher: Watcher = watcher, seen: list[Observation] = seen) -> None:
            for one in seen:
                watcher.see(one)

        took = timed(feed)
        judged = timed(lambda: [watcher.scorer.judge(BEGAN + 100) for _ in range(CLIENTS // 500)])  # noqa: B023 - at once
        each, verdict = took / REQUESTS * 1e6, judged / CLIENTS * 1e6
        print(f"{name} request and its answer: {each:.1f} µs; a judgement: {verdict:.1f} µs")
    seen = messages(CLIENTS, CLIENTS * 3, browser=False)
    tracemalloc.start()
    watcher = Watcher(Scorer(CLIENTS, WINDOW, THRESHOLD, LASTING))
    before = tracemalloc.get_traced_memory()[0]
    for one in seen:
        watcher.see(one)
    after = tracemalloc.get_traced_memory()[0]
    print(f"{len(watcher.scorer)} clients: {(after - before) / CLIENTS:.0f} bytes each")


if __name__ == "__main__":
    main()
