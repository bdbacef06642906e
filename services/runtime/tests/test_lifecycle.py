"""Starting, stopping, and the file that says ready."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rabbitbal.runtime import lifecycle
from rabbitbal.runtime.lifecycle import Stop, instance_name, keep_ready_file


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.005)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ready"


async def end(task: "asyncio.Future[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_ready_file_is_there_while_the_service_is_ready(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It appears when the service becomes ready, disappears when it no longer is, and is gone at the end."""
    monkeypatch.setattr(lifecycle, "READY_PERIOD", 0.05)
    state = {"ready": False}
    task = asyncio.ensure_future(keep_ready_file(lambda: state["ready"], file))
    await until(lambda: not file.exists())
    state["ready"] = True
    await until(file.exists)
    state["ready"] = False
    await until(lambda: not file.exists())
    state["ready"] = True
    await until(file.exists)
    await end(task)
    assert not file.exists()


async def test_the_ready_file_is_kept_fresh(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The health check looks at its age; nobody touches it once the loop hangs, so it goes stale."""
    monkeypatch.setattr(lifecycle, "READY_PERIOD", 0.05)
    task = asyncio.ensure_future(keep_ready_file(lambda: True, file))
    await until(file.exists)
    os.utime(file, (0, 0))
    await until(lambda: file.stat().st_mtime > 0)
    await end(task)


async def test_a_ready_file_of_a_former_life_is_removed_at_the_start(file: Path) -> None:
    """A container that is restarted keeps its files."""
    file.touch()
    task = asyncio.ensure_future(keep_ready_file(lambda: False, file))
    await until(lambda: not file.exists())
    await end(task)


async def test_the_first_signal_asks_and_the_second_insists() -> None:
    """A third changes nothing."""
    stop = Stop()
    states = [(stop.asked.is_set(), stop.insisted.is_set())]
    for _ in range(3):
        stop()
        states.append((stop.asked.is_set(), stop.insisted.is_set()))
    assert states == [(False, False), (True, False), (True, True), (True, True)]


def test_instances_on_one_host_have_different_names() -> None:
    """Short names that are good in routing keys and header fields."""
    names = {instance_name() for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) <= 47 and not set(name) & set(" .*#") for name in names)


PROGRAM = """
import asyncio, os, signal, sys
from dataclasses import dataclass
from rabbitbal.runtime.lifecycle import main
from rabbitbal.runtime.settings import setting

@dataclass(frozen=True)
class Settings:
    limit: int = setting(1, "a number", least=1)

async def serve(settings, stop):
    print("serving", settings.limit, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.asked.wait()
    os.kill(os.getpid(), signal.SIGINT)
    await stop.insisted.wait()
    print("stopped", flush=True)

main(Settings, serve, "sample")
"""


def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join(str(Path(place).resolve()) for place in sys.path if place)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={"PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_signals_reach_the_service() -> None:
    """SIGTERM and SIGINT are the same to it; the exit is clean."""
    done = run(RABBITBAL_LIMIT="5")
    assert (done.returncode, done.stdout) == (0, "serving 5\nstopped\n")


def test_a_bad_setting_ends_the_program_with_one_line() -> None:
    """Status 2, no traceback."""
    done = run(RABBITBAL_LIMIT="none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rabbitbal sample: RABBITBAL_LIMIT='none' is not a valid int\n"


def test_help_lists_the_settings() -> None:
    """And starts nothing."""
    done = run("--help")
    assert done.returncode == 0
    assert "RABBITBAL_LIMIT" in done.stdout
    assert "serving" not in done.stdout
