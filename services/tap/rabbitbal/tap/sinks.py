"""Where access lines go: standard output, a file that is rotated, or nowhere.

A line is rendered once for all of them, and lines are written in batches: a line in a write of its own costs several
times as much. A sink that fails, as its disk is full or read-only, stops nobody: it says so once, counts what it could
not write, and tries again later.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, Protocol

import structlog

from rabbitbal.runtime.settings import SettingsError
from rabbitbal.tap.combined import combined, combined_plus
from rabbitbal.tap.rotation import RotatedFile
from rabbitbal.tap.settings import Settings

log = structlog.get_logger()

Render = Callable[[dict[str, Any], float], str]
Later = Callable[[float, Callable[[], None]], object]
"""Calls a function after so many seconds; the event loop's `call_later`."""

# Seconds that a line may wait for others, and how many wait at most.
LINGER = 0.1
MOST_LINES = 500
# Seconds until a sink that failed is tried again.
RETRY = 5.0

_encode = json.JSONEncoder().encode


class Sink(Protocol):
    """``name`` is what the log calls it."""

    name: str

    def write(self, lines: Sequence[bytes]) -> None:
        """Each line has its end. Raises OSError when not all of them are written."""


class Stream:
    """Standard output, or another stream that others write to, too."""

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self.name = name
        self._stream = stream

    def write(self, lines: Sequence[bytes]) -> None:
        rest = memoryview(b"".join(lines))
        while rest:
            # An unbuffered stream may take a part, or nothing where it does not block.
            taken = self._stream.write(rest)
            if not taken:
                raise BlockingIOError(f"{self.name} takes nothing")
            rest = rest[taken:]
        self._stream.flush()


class Sinks:
    """All of them. Without any, a line costs nothing."""

    def __init__(self, render: Render, sinks: Sequence[Sink], later: Later) -> None:
        self._render = render
        self._sinks = [_Guarded(sink) for sink in sinks]
        self._later = later
        self._waiting: list[bytes] = []

    @property
    def lost(self) -> int:
        """Lines that a sink could not write."""
        return sum(sink.lost for sink in self._sinks)

    def write(self, line: dict[str, Any], at: float) -> None:
        """``at``: when the request ended, in seconds since the Unix epoch."""
        if not self._sinks:
            return
        if not self._waiting:
            self._later(LINGER, self.flush)
        self._waiting.append(self._render(line, at).encode() + b"\n")
        if len(self._waiting) >= MOST_LINES:
            self.flush()

    def flush(self) -> None:
        lines, self._waiting = self._waiting, []
        if lines:
            for sink in self._sinks:
                sink.write(lines)


class _Guarded:
    """A sink that may fail."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._again = 0.0
        self._missed = 0
        """Lines since it failed; 0 while it works."""
        self.lost = 0

    def write(self, lines: Sequence[bytes]) -> None:
        if self._missed and time.monotonic() < self._again:
            self._miss(len(lines))
            return
        try:
            self._sink.write(lines)
        except OSError as error:
            self._again = time.monotonic() + RETRY
            if not self._missed:
                # Once, not with every batch.
                log.warning("tap.access_log_failed", sink=self._sink.name, error=str(error), retry_seconds=RETRY)
            self._miss(len(lines))
            return
        if self._missed:
            log.info("tap.access_log_resumed", sink=self._sink.name, lost=self._missed)
            self._missed = 0

    def _miss(self, lines: int) -> None:
        self._missed += lines
        self.lost += lines


def json_lines(service: str, instance: str) -> Render:
    """The same lines as the service's log has, for a fraction of the time that it takes."""

    def render(line: dict[str, Any], at: float) -> str:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return _encode(
            {**line, "event": "access", "level": "info", "timestamp": now, "service": service, "instance": instance}
        )

    return render


def build(settings: Settings, instance: str, later: Later) -> Sinks:
    """As the settings say. The `table` is the ledger's own view, so it is no sink here. Raises SettingsError where
    there is no ledger."""
    chosen = settings.access_log_sinks()
    if "table" in chosen and settings.ledger_url == "none":
        raise SettingsError("RABBITBAL_ACCESS_LOG names the table, and with RABBITBAL_LEDGER_URL=none there is none")
    found: list[Sink] = []
    if "stdout" in chosen:
        found.append(Stream("stdout", sys.stdout.buffer))
    if "file" in chosen:
        found.append(RotatedFile(settings.access_log_file, settings.access_log_size, settings.access_log_keep))
    renders = {"json": json_lines("tap", instance), "combined": combined, "combined+": combined_plus}
    return Sinks(renders[settings.access_log_format], found, later)
