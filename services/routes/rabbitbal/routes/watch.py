"""A file of routes that is read anew whenever it changes."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from rabbitbal.routes.document import RoutesError, load
from rabbitbal.routes.table import BUILT_IN, Problem, Table
from rabbitbal.routes.tree import MOST_BYTES

log = structlog.get_logger()

PERIOD = 0.5


class RoutesFile:
    """``table`` is always whole and valid. ``told`` hears of each new table, and of each file that is refused.

    The file is looked at every half second: what a host changes in a directory that is mounted into a container is not
    always told to those inside (inotify).
    """

    def __init__(self, path: Path | None, told: Callable[[dict[str, object]], None]) -> None:
        self._path = path
        self._told = told
        self.table: Table = BUILT_IN
        self._loaded_at = time.time()
        self._seen = ""
        # What was broken at the last look: an editor may be in the middle of writing it.
        self._suspected = ""
        self._error: str | None = None

    def start(self) -> None:
        """Read it for the first time. Raises RoutesError."""
        if self._path is None:
            return
        try:
            text = self._read(self._path)
        except OSError as error:
            problem = Problem(1, 1, "", f"cannot be read: {error.strerror or error}")
            raise RoutesError(str(self._path), [problem]) from error
        self._seen = hashlib.sha256(text).hexdigest()
        self._take(load(text, str(self._path)))

    async def run(self) -> None:
        """Until cancelled. A file that is no table changes nothing."""
        while self._path is not None:
            await asyncio.sleep(PERIOD)
            await self._look(self._path)

    async def _look(self, path: Path) -> None:
        try:
            text = await asyncio.to_thread(self._read, path)
        except OSError as error:
            self._refuse(f"gone: {error.strerror}", f"{path}:1:1: cannot be read: {error.strerror or error}")
            return
        seen = hashlib.sha256(text).hexdigest()
        if seen == self._seen:
            return
        try:
            # In a thread: a large table takes longer than requests should wait.
            table = await asyncio.to_thread(load, text, str(path))
        except RoutesError as error:
            if seen == self._suspected:
                self._refuse(seen, str(error))
            self._suspected = seen
            return
        self._seen = seen
        self._take(table)

    def _read(self, path: Path) -> bytes:
        with path.open("rb") as file:
            # One byte more than is allowed, so that the reader sees it.
            return file.read(MOST_BYTES + 1)

    def _take(self, table: Table) -> None:
        changed = table.digest != self.table.digest or self._error is not None
        self.table, self._error, self._loaded_at = table, None, time.time()
        if not changed:
            return
        warnings = [warning.told(table.source) for warning in table.warnings]
        self._told(
            {"event": "routes.loaded", "digest": table.digest, "routes": len(table.routes), "warnings": warnings[:20]}
        )

    def _refuse(self, seen: str, error: str) -> None:
        if seen != self._seen:
            self._seen, self._error = seen, error
            self._told({"event": "routes.refused", "error": error[:4000], "digest": self.table.digest})

    def state(self) -> dict[str, object]:
        """The table in force, and why a newer file is not."""
        table = self.table
        return {
            "source": table.source,
            "digest": table.digest,
            "loaded_at": datetime.fromtimestamp(self._loaded_at, UTC).isoformat(timespec="milliseconds"),
            "refused": self._error,
            "routes": [
                {
                    "name": route.name,
                    "match": str(route.match),
                    "to": list(route.to) if route.depth is None else f"first {route.depth} segments of the path",
                    "mode": route.policy.mode.value,
                }
                for route in table.routes[:1000]
            ],
            "number": len(table.routes),
        }
