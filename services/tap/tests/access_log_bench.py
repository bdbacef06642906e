"""What an access line costs in processor time: the service's own log, one write each, beside the sinks.

PYTHONPATH=wire:services/runtime:services/tap .venv/bin/python services/tap/tests/access_log_bench.py
"""

import io
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import structlog

from rabbitbal.runtime import logs
from rabbitbal.tap.combined import combined, combined_plus
from rabbitbal.tap.redaction import Redactor
from rabbitbal.tap.sinks import Sinks, Stream, json_lines

LINES = 20_000
# At a thousand requests a second, so many come in a tenth of one.
BATCH = 100
LINE: dict[str, Any] = {
    "method": "GET",
    "target": "/work?ms=20&key=logged",
    "host": "h.example",
    "client": "203.0.113.7",
    "agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
    "referer": None,
    "route": "default",
    "edge": "edge-1",
    "request_bytes": 0,
    "worker": "worker-1",
    "app_ms": 20.12,
    "status": 200,
    "bytes": 123,
    "id": "c0ffee" * 5,
    "attempt": 1,
    "reason": None,
    "pool": "default",
    "total_ms": 25,
    "queue_ms": 4.88,
}


def measured(name: str, action: Callable[[int], object]) -> None:
    started = time.process_time()
    for number in range(LINES):
        action(number)
    print(f"{name:32} {(time.process_time() - started) / LINES * 1e6:6.2f} us")


def main() -> None:
    logs.configure("tap", "tap-1")
    with open(os.devnull, "wb", buffering=0) as out:
        (handler,) = logging.getLogger().handlers
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(io.TextIOWrapper(out, write_through=True))
        log = structlog.get_logger()
        measured("structlog, a write each", lambda _: log.info("access", **LINE))
        for name, render in (("json", json_lines("tap", "1")), ("combined", combined), ("combined+", combined_plus)):
            sinks = Sinks(render, [Stream("out", out)], lambda *_: None)

            def write(number: int, sinks: Sinks = sinks) -> None:
                sinks.write(LINE, time.time())
                if number % BATCH == BATCH - 1:
                    sinks.flush()

            measured(f"sinks, {name}", write)
        redactor = Redactor()
        for target in (b"/work", b"/work?ms=20&key=logged", b"/in?token=abc&next=%2Fa%3Fb%3Dc"):
            measured(f"target {target.decode()}", lambda _, target=target: redactor.target(target))  # type: ignore[misc]


if __name__ == "__main__":
    main()
