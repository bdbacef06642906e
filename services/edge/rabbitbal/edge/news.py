"""What happens to an edge and belongs to no request: a line in its log, and a notice to the tap."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

log = structlog.get_logger()

# Notices that wait for a broker that is away; of more the oldest are in the log alone.
KEPT = 64


class News:
    """``wait_up`` returns when the broker is there; ``notice`` publishes, and does not wait."""

    def __init__(self, wait_up: Callable[[], Awaitable[None]], notice: Callable[[dict[str, object]], None]) -> None:
        self._wait_up = wait_up
        self._notice = notice
        self._waiting: deque[dict[str, object]] = deque(maxlen=KEPT)
        self._told = asyncio.Event()

    def tell(self, event: dict[str, object]) -> None:
        """``event["event"]`` is its name, as `routes.loaded`; `routes.refused`, or one with warnings, is a warning."""
        name = str(event["event"])
        details = {key: value for key, value in event.items() if key != "event"}
        (log.warning if name.endswith(".refused") or event.get("warnings") else log.info)(name, **details)
        # When it happened, which may be long before it is told.
        self._waiting.append({"when": datetime.now(UTC).isoformat(timespec="milliseconds"), **event})
        self._told.set()

    async def run(self) -> None:
        """Publish what was told, until cancelled."""
        while True:
            await self._told.wait()
            await self._wait_up()
            while self._waiting:
                self._notice(self._waiting.popleft())
            self._told.clear()
