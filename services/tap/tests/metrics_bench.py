"""What the metrics cost the tap, in CPU time: PYTHONPATH=wire:services/runtime:services/tap .venv/bin/python
services/tap/tests/metrics_bench.py"""

import time
from collections.abc import Callable
from typing import Any

from prometheus_client.exposition import choose_encoder

from rabbitbal.tap.metrics import MOST_NAMES, Metrics
from rabbitbal.tap.observation import Observation
from rabbitbal.wire.envelope import Envelope, Kind

REQUESTS = 100_000


def ended(number: int, route: str, pool: str) -> Observation:
    seen = Observation(1e6 + number / 1000, Envelope(Kind.RESPONSE, str(number), "worker-1", sent=1_000_000_000), b"")
    line: dict[str, Any] = {"id": str(number), "status": 200, "reason": None, "attempt": 1, "route": route}
    line |= {"pool": pool, "total_ms": 20 + number % 300, "app_ms": 15.0, "queue_ms": 5.0}
    seen.line = line | {"bytes": 100, "request_bytes": 7}
    return seen


def cost(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    metrics = Metrics()
    encode, _ = choose_encoder("")
    requests = [ended(number, f"route-{number % 20}", "default") for number in range(REQUESTS)]

    def see() -> None:
        for request in requests:
            metrics.see(request)

    print(f"a request: {cost(see) / REQUESTS * 1e6:.1f} us")
    print(f"an answer with 20 routes and one pool: {cost(lambda: encode(metrics.registry)) * 1e3:.0f} ms")
    for request in requests:
        request.line = None
    print(f"another message: {cost(see) / REQUESTS * 1e6:.2f} us")
    for number in range(MOST_NAMES):
        metrics.see(ended(REQUESTS + number, f"more-{number}", f"pool-{number}"))
    print(f"an answer with {MOST_NAMES} of each: {cost(lambda: encode(metrics.registry)) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
