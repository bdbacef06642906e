"""`rabbitbal record`: what flows, into a file. The tap pairs and redacts; this command only writes."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Protocol, TextIO

import typer

from rabbitbal.operator import har
from rabbitbal.operator.errors import Failed
from rabbitbal.operator.interrupts import Interrupt
from rabbitbal.operator.reach import say
from rabbitbal.operator.recordings import PIPE
from rabbitbal.operator.settings import Settings
from rabbitbal.operator.tap import Tap
from rabbitbal.runtime.settings import read
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.recording import Exchange, decode_exchange

PERIOD = 1.0


class Sink(Protocol):
    """A kind of file. ``end`` makes it whole."""

    def add(self, line: str, exchange: Exchange) -> None: ...
    def end(self, counts: dict[str, Any]) -> None: ...


class Lines:
    """Newline-delimited JSON, as the tap says it; the counts are its last line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, line: str, exchange: Exchange) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def end(self, counts: dict[str, Any]) -> None:
        self._file.write(json.dumps(counts) + "\n")
        self._file.flush()


class Archive:
    """HAR."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._between = "\n"
        file.write(har.HEAD)

    def add(self, line: str, exchange: Exchange) -> None:
        self._file.write(self._between + json.dumps(har.entry(exchange)))
        self._between = ",\n"

    def end(self, counts: dict[str, Any]) -> None:
        self._file.write(har.TAIL)
        self._file.flush()


def record(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="where to; - is standard output")] = PIPE,
    as_har: Annotated[bool, typer.Option("--har", help="write an HTTP Archive, not lines of JSON")] = False,
    route: Annotated[str | None, typer.Option("--route", help="of this route alone")] = None,
    pool: Annotated[str | None, typer.Option("--pool", help="answered by this pool alone")] = None,
    method: Annotated[str | None, typer.Option("--method", help="with this method alone")] = None,
    path: Annotated[str | None, typer.Option("--path", help="whose path begins so")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="end after so many requests")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0.1, help="end after so long")] = None,
    sample: Annotated[float, typer.Option("--sample", min=0.000001, max=1, help="this share of requests")] = 1.0,
) -> None:
    """Record requests and their answers while they flow. Ctrl-C ends it, and the file is whole.

    The tap has redacted credentials before this command sees anything. Of bodies over 64 KiB, and of streamed ones,
    only the size is recorded. Redirect the output, as the command may run in a container: `rabbitbal record > FILE`.
    """
    tap = Tap(read(Settings).tap_url)
    wanted: dict[str, str | int | None] = {
        "route": route,
        "pool": pool,
        "method": method,
        "path": path,
        "limit": limit,
        "seconds": None if seconds is None else str(seconds),
        "sample": None if sample == 1 else str(sample),
    }
    try:
        with file.open("w") if file != PIPE else contextlib.nullcontext(sys.stdout) as opened:
            sink: Sink = Archive(opened) if as_har else Lines(opened)
            _record(tap.stream("api/record", **wanted), sink)
    except BrokenPipeError:
        # Whoever read it has enough. What is still to be flushed at the end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise Failed(f"{file}: {error.strerror or error}") from error
    finally:
        tap.close()


def _record(lines: Iterator[str], sink: Sink) -> None:
    """Raises Failed where it did not end as it was to. The file is made whole in any case."""
    counts: dict[str, Any] = {"recorded": 0, "skipped": 0, "forgotten": 0}
    written = 0
    failed: Failed | None = None
    progress = _Progress()
    with Interrupt() as interrupt:
        while "end" not in counts:
            try:
                with interrupt.waiting():
                    line = next(lines, None)
            except KeyboardInterrupt:
                counts["end"] = "interrupted"
                break
            except Failed as error:
                failed = error
                break
            if line is None:
                failed = Failed("the tap has ended the recording before its end")
                break
            try:
                found = decode_exchange(line)
            except WireError as error:
                failed = Failed(f"the tap's line {written + 1} makes no sense: {error}")
                break
            if isinstance(found, Exchange):
                sink.add(line, found)
                written += 1
            else:
                counts = found
            progress.show(written, counts)
        if failed is not None:
            counts["end"] = "failed"
        sink.end(counts | {"recorded": written})
    progress.end()
    if failed is None or written:
        say(_told(written, counts))
    if failed is not None:
        raise failed


def _told(written: int, counts: dict[str, Any]) -> str:
    text = f"recorded {written} request{'' if written == 1 else 's'}"
    if counts.get("skipped"):
        text += f"; {counts['skipped']} were skipped, as they came faster than they could be written"
    if counts.get("forgotten"):
        text += f"; {counts['forgotten']} had no ending while the tap had room for them"
    return text


class _Progress:
    """On a terminal, a line that changes; else nothing but its beginning."""

    def __init__(self) -> None:
        self._shown = 0.0
        self._terminal = sys.stderr.isatty()
        say("recording; Ctrl-C ends it")

    def show(self, written: int, counts: dict[str, Any]) -> None:
        now = time.monotonic()
        if self._terminal and now - self._shown >= PERIOD:
            self._shown = now
            typer.echo(f"\r\x1b[K{_told(written, counts)}", err=True, nl=False)

    def end(self) -> None:
        if self._terminal:
            typer.echo("\r\x1b[K", err=True, nl=False)
