"""What must be finished once it was begun, whoever presses Ctrl-C."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def uninterrupted(noticed: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Signals that would end the command are only told to ``noticed``. In the main thread alone."""
    handlers = {number: signal.signal(number, lambda *_: noticed()) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Interrupt:
    """Ctrl-C ends a wait at once, and what is not a wait when it is through. In the main thread alone."""

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._came) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Raises KeyboardInterrupt."""
        self._waiting = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False

    def _came(self, *_: object) -> None:
        self.asked = True
        if self._waiting:
            raise KeyboardInterrupt
