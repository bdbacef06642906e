"""Where access lines go, in what form, and what happens when that place is not there."""

import io
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from rabbitbal.runtime import logs
from rabbitbal.runtime.settings import SettingsError, read
from rabbitbal.tap import sinks
from rabbitbal.tap.combined import combined, combined_plus
from rabbitbal.tap.settings import Settings
from rabbitbal.tap.sinks import MOST_LINES, Sinks, Stream, build, json_lines
from rabbitbal.wire.reasons import Reason

LINE: dict[str, Any] = {
    "status": 504,
    "target": "/é\u2028",
    "reason": Reason.QUEUE_TIMEOUT,
    "worker": None,
    "app_ms": 1.25,
}


class Timer:
    """Runs what was to be done later when the test says so."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, action: Callable[[], None]) -> None:
        self.due.append((seconds, action))

    def pass_(self) -> None:
        due, self.due = self.due, []
        for _, action in due:
            action()


class Disk:
    """A sink that can be full."""

    name = "disk"

    def __init__(self) -> None:
        self.full = False
        self.tries = 0
        self.lines: list[bytes] = []

    def write(self, lines: Sequence[bytes]) -> None:
        self.tries += 1
        if self.full:
            raise OSError(28, "No space left on device")
        self.lines += lines


@pytest.fixture
def timer() -> Timer:
    return Timer()


def number(line: dict[str, Any], at: float) -> str:
    return str(line["n"])


# --- settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"stdout"}),
        ("stdout", {"stdout"}),
        ("file", {"file"}),
        ("none", set()),
        ("table", {"table"}),
        ("stdout, file ,table,file", {"stdout", "file", "table"}),
    ],
)
def test_the_sinks_are_a_list_in_a_setting(text: str, expected: set[str]) -> None:
    assert read(Settings, {"RABBITBAL_ACCESS_LOG": text}).access_log_sinks() == expected


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RABBITBAL_ACCESS_LOG", "stdout,none"),
        ("RABBITBAL_ACCESS_LOG", "syslog"),
        ("RABBITBAL_ACCESS_LOG", "stdout,"),
        ("RABBITBAL_ACCESS_LOG", "stdout file"),
        ("RABBITBAL_ACCESS_LOG_FORMAT", "common"),
        ("RABBITBAL_ACCESS_LOG_FORMAT", "combined++"),
        ("RABBITBAL_ACCESS_LOG_SIZE", "65535"),
        ("RABBITBAL_ACCESS_LOG_KEEP", "0"),
        ("RABBITBAL_ACCESS_LOG_KEEP", "1001"),
    ],
)
def test_a_bad_choice_names_its_variable(variable: str, text: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        read(Settings, {variable: text})


def test_a_table_without_a_ledger_is_refused(timer: Timer) -> None:
    """The lines would be nowhere."""
    settings = read(Settings, {"RABBITBAL_ACCESS_LOG": "stdout,table", "RABBITBAL_LEDGER_URL": "none"})
    with pytest.raises(SettingsError, match=r"RABBITBAL_ACCESS_LOG .*RABBITBAL_LEDGER_URL=none"):
        build(settings, "tap-1", timer)


# --- what is written


def test_a_json_line_is_the_one_that_the_service_log_would_write(capsys: pytest.CaptureFixture[str]) -> None:
    """To the byte, but for the moment: who reads the tap's output need not know that it has two writers."""
    structlog.reset_defaults()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure("tap", "tap-1")
        structlog.get_logger().info("access", **LINE)
    finally:
        root.handlers[:], root.level = handlers, level
        structlog.reset_defaults()
    theirs = capsys.readouterr().out.rstrip("\n")
    ours = json_lines("tap", "tap-1")(LINE, 0.0)
    moments = [json.loads(text)["timestamp"] for text in (theirs, ours)]
    assert ours.replace(moments[1], moments[0]) == theirs
    assert moments[0] <= moments[1]
    assert all(len(moment) == len("2026-01-01T00:00:00.000000Z") or "." not in moment for moment in moments)


@pytest.mark.parametrize(("form", "render"), [("combined", combined), ("combined+", combined_plus)])
def test_lines_go_to_standard_output_and_the_file_as_chosen(
    form: str, render: sinks.Render, tmp_path: Path, timer: Timer, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The same text, alone on its line."""
    settings = read(
        Settings,
        {
            "RABBITBAL_ACCESS_LOG": "stdout,file,table",
            "RABBITBAL_ACCESS_LOG_FORMAT": form,
            "RABBITBAL_ACCESS_LOG_FILE": str(tmp_path / "a.log"),
        },
    )
    found = build(settings, "tap-1", timer)
    for at in (1.0, 2.0):
        found.write(LINE, at)
    timer.pass_()
    expected = "".join(render(LINE, at) + "\n" for at in (1.0, 2.0)).encode()
    assert capfdbinary.readouterr().out == expected
    assert (tmp_path / "a.log").read_bytes() == expected


@pytest.mark.parametrize("text", ["none", "table"])
def test_without_a_sink_nothing_is_rendered_or_kept(text: str, timer: Timer, capfd: pytest.CaptureFixture[str]) -> None:
    """The ledger's view has the lines then, or nobody."""
    found = build(read(Settings, {"RABBITBAL_ACCESS_LOG": text}), "tap-1", timer)
    found.write(LINE, 0.0)
    found.flush()
    assert timer.due == []
    assert capfd.readouterr().out == ""


def test_lines_wait_a_moment_for_others(timer: Timer) -> None:
    """One timer for a batch, within what a reader is promised: a fifth of a second."""
    disk = Disk()
    found = Sinks(number, [disk], timer)
    for n in range(3):
        found.write({"n": n}, 0.0)
    assert disk.lines == []
    assert [seconds for seconds, _ in timer.due] == [sinks.LINGER]
    assert sinks.LINGER < 0.2
    timer.pass_()
    assert disk.lines == [b"0\n", b"1\n", b"2\n"]
    assert disk.tries == 1


def test_few_lines_wait_at_most(timer: Timer) -> None:
    """Memory is bounded, whatever becomes of the timer."""
    disk = Disk()
    found = Sinks(number, [disk], timer)
    for n in range(MOST_LINES):
        found.write({"n": n}, 0.0)
    assert len(disk.lines) == MOST_LINES
    timer.pass_()
    found.flush()
    assert disk.tries == 1


# --- what fails


def test_a_sink_that_fails_says_so_once_counts_and_is_tried_again(
    timer: Timer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the others go on."""
    now = 100.0
    monkeypatch.setattr("rabbitbal.tap.sinks.time.monotonic", lambda: now)
    disk, other = Disk(), Disk()
    found = Sinks(number, [disk, other], timer)

    def write(count: int) -> None:
        for n in range(count):
            found.write({"n": n}, 0.0)
        found.flush()

    with structlog.testing.capture_logs() as said:
        write(1)
        disk.full = True
        write(2)
        write(3)
        now += sinks.RETRY + 1
        write(4)
        assert (disk.tries, found.lost) == (3, 9)
        disk.full = False
        write(5)
        now += sinks.RETRY + 1
        write(6)
    assert [line["event"] for line in said] == ["tap.access_log_failed", "tap.access_log_resumed"]
    assert said[0]["sink"] == "disk"
    assert "No space left" in said[0]["error"]
    assert said[1]["lost"] == found.lost == 14
    assert len(disk.lines) == 1 + 6
    assert len(other.lines) == 1 + 2 + 3 + 4 + 5 + 6


def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path: Path, timer: Timer) -> None:
    """The file's folder is missing: a line of the log, and the lines are counted."""
    settings = {"RABBITBAL_ACCESS_LOG": "file", "RABBITBAL_ACCESS_LOG_FILE": str(tmp_path / "no" / "a.log")}
    found = build(read(Settings, settings), "tap-1", timer)
    with structlog.testing.capture_logs() as said:
        found.write(LINE, 0.0)
        found.flush()
    assert [line["event"] for line in said] == ["tap.access_log_failed"]
    assert found.lost == 1


class Slow(io.RawIOBase):
    """A stream without a buffer, as Python's standard output is when PYTHONUNBUFFERED is set."""

    def __init__(self, takes: int | None) -> None:
        self.takes = takes
        self.taken = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        if self.takes is None:
            return None
        part = bytes(data)[: self.takes]
        self.taken += part
        return len(part)


def test_a_stream_that_takes_a_part_gets_the_rest() -> None:
    """Nothing of a line is lost; one that takes nothing is an error and no endless loop."""
    slow = Slow(7)
    Stream("stdout", slow).write([b"first line\n", b"second line\n"])  # type: ignore[arg-type]  # a raw stream will do
    assert slow.taken == b"first line\nsecond line\n"
    with pytest.raises(BlockingIOError):
        Stream("stdout", Slow(None)).write([b"line\n"])  # type: ignore[arg-type]  # a raw stream will do


def test_a_line_follows_what_the_service_has_said_before(capfd: pytest.CaptureFixture[str], timer: Timer) -> None:
    """Both write to one stream."""
    found = Sinks(number, [Stream("stdout", sys.stdout.buffer)], timer)
    for n in range(3):
        sys.stdout.write(f"said {n}\n")
        sys.stdout.flush()
        found.write({"n": n}, 0.0)
        found.flush()
    assert capfd.readouterr().out.split() == ["said", "0", "0", "said", "1", "1", "said", "2", "2"]
