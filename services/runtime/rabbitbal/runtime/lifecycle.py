"""Starting and stopping a service: settings, signals, event loop, readiness."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, TypeVar

import uvloop

from rabbitbal.runtime import settings as settings_

T = TypeVar("T", bound="DataclassInstance")

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

READY_FILE = Path("/tmp/rabbitbal-ready")  # noqa: S108 - a tmpfs of the container's own
READY_PERIOD = 5.0


class Stop:
    """Two requests to stop: the first asks to finish the work at hand, the second to give it up."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()

    def __call__(self) -> None:
        (self.insisted if self.asked.is_set() else self.asked).set()


def instance_name() -> str:
    """Unique over restarts of the same container, and short enough to read."""
    return f"{socket.gethostname()[:40]}-{token_hex(3)}"


def main(kind: type[T], serve: Callable[[T, Stop], Awaitable[None]], service: str) -> None:
    """Run a service until SIGTERM or SIGINT. A bad setting ends the program with status 2 and one line."""
    if "--help" in sys.argv[1:] or "-h" in sys.argv[1:]:
        print(f"usage: python -m rabbitbal.{service}\n\n{settings_.describe(kind)}")
        return
    try:
        config = settings_.read(kind)
    except settings_.SettingsError as error:
        sys.exit(_complain(service, str(error)))

    async def run() -> None:
        stop = Stop()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        await serve(config, stop)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except settings_.SettingsError as error:
        sys.exit(_complain(service, str(error)))


def _complain(service: str, text: str) -> int:
    print(f"rabbitbal {service}: {text}", file=sys.stderr, flush=True)
    return 2


async def keep_ready_file(ready: Callable[[], bool], path: Path = READY_FILE) -> None:
    """Touch the file while the service is ready, remove it while it is not; run until cancelled.

    The container's health check is the age of this file. It costs no port (nothing listens on a worker), no start of
    an interpreter, and it goes stale when the event loop hangs.
    """
    with _removed_afterwards(path):
        while True:
            if ready():
                path.touch()
            else:
                path.unlink(missing_ok=True)
            await asyncio.sleep(0.25 if not path.exists() else READY_PERIOD / 5)


@contextlib.contextmanager
def _removed_afterwards(path: Path) -> Iterator[None]:
    path.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
