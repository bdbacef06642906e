"""`rabbitbal record`: whatever ends it, the file is whole and says why. The tap is a real HTTP server of the test's."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from rabbitbal.operator import har
from rabbitbal.operator.errors import Failed
from rabbitbal.operator.interrupts import Interrupt
from rabbitbal.operator.record_commands import record
from rabbitbal.operator.recordings import load
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.recording import Exchange, encode_exchange

GET = Exchange("a1", 1000, Request("GET", b"/a", [(b"Host", b"h")]), Response(204))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"
COUNTS = {"recorded": 0, "skipped": 0, "forgotten": 0}


class Tap:
    """Answers one request with what it is given, and then closes or stays silent."""

    def __init__(self, answer: bytes, *, stays: bool = False) -> None:
        self._answer, self._stays = answer, stays
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.sent = threading.Event()
        self.left = threading.Event()
        self.asked = b""
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(ConnectionError):
            while b"\r\n\r\n" not in self.asked:
                self.asked += connection.recv(65536)
            connection.sendall(self._answer)
            self.sent.set()
            if self._stays:
                connection.recv(1)
                self.left.set()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "out"


def lines(*parts: Exchange | Mapping[str, object]) -> bytes:
    texts = (encode_exchange(part) if isinstance(part, Exchange) else json.dumps(part) for part in parts)
    return HEAD + "".join(f"{text}\n" for text in texts).encode()


def run(monkeypatch: pytest.MonkeyPatch, tap: Tap, file: Path, **options: object) -> None:
    monkeypatch.setenv("RABBITBAL_TAP_URL", tap.url)
    record(file, **options)  # type: ignore[arg-type]


def last(file: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(file.read_text().splitlines()[-1])
    return found


def test_what_the_tap_says_is_written(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Without the counts in between, and with those at the end."""
    tap = Tap(
        lines(COUNTS, GET, COUNTS, replace(GET, id="b2"), {**COUNTS, "recorded": 2, "skipped": 3, "end": "limit"})
    )
    run(monkeypatch, tap, file, limit=2, route="a b", sample=0.5)
    assert [exchange.id for exchange in load(file)] == ["a1", "b2"]
    assert last(file) == {"recorded": 2, "skipped": 3, "forgotten": 0, "end": "limit"}
    assert tap.asked.startswith(b"GET /api/record?route=a+b&limit=2&sample=0.5 HTTP/1.1\r\n")


def test_an_archive_is_written(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    run(monkeypatch, Tap(lines(GET, replace(GET, id="b2"), {**COUNTS, "end": "seconds"})), file, as_har=True)
    assert [exchange.id for exchange in har.read(file.read_text())] == ["a1", "b2"]


@contextlib.contextmanager
def interrupted(tap: Tap) -> Iterator[None]:
    """Ctrl-C, when the tap has said all."""

    def press() -> None:
        tap.sent.wait(10)
        # It reads what is there, and then waits.
        tap.left.wait(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize("as_har", [False, True])
def test_ctrl_c_leaves_a_whole_file(monkeypatch: pytest.MonkeyPatch, file: Path, as_har: bool) -> None:
    """Nothing is raised, the tap sees its reader leave, and Ctrl-C means again what it meant before."""
    tap = Tap(lines(COUNTS, GET), stays=True)
    before = signal.getsignal(signal.SIGINT)
    with interrupted(tap):
        run(monkeypatch, tap, file, as_har=as_har)
    assert [exchange.id for exchange in load(file)] == ["a1"]
    assert as_har or last(file)["end"] == "interrupted"
    assert tap.left.wait(10)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_between_waits_ends_the_next_one() -> None:
    """A line that is being written is written whole."""
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt), interrupt.waiting():
            pytest.fail("there is nothing to wait for")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lines(COUNTS, GET), "has ended the recording before its end"),
        (lines(GET)[:-30], "makes no sense"),
        (HEAD + b'{"id": 7}\n', "makes no sense"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 29\r\n\r\n" + b'{"detail":"4 record already"}', "4 record already"),
    ],
)
def test_a_tap_that_goes_away_is_told_and_the_file_is_whole(
    monkeypatch: pytest.MonkeyPatch, file: Path, answer: bytes, words: str
) -> None:
    with pytest.raises(Failed, match=words):
        run(monkeypatch, Tap(answer), file)
    assert len(load(file)) == (answer == lines(COUNTS, GET))
    assert last(file)["end"] == "failed"


def test_a_place_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    with pytest.raises(Failed, match="No such file or directory"):
        run(monkeypatch, Tap(b""), file / "deep")


def test_whoever_closes_the_output_has_enough() -> None:
    """`rabbitbal record | head -1` ends without an error."""
    tap = Tap(lines(*[GET] * 2000, {**COUNTS, "end": "limit"}))
    environment = os.environ | {"RABBITBAL_TAP_URL": tap.url, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = subprocess.Popen(
        [sys.executable, "-m", "rabbitbal.operator", "record"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stderr is not None
    assert json.loads(command.stdout.readline())["id"] == "a1"
    command.stdout.close()
    said = command.stderr.read()
    command.stderr.close()
    assert command.wait(30) == 0
    assert said == b"rabbitbal: recording; Ctrl-C ends it\n"
