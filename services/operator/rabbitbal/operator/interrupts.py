"""What must be finished once it was begun, whoever presses Ctrl-C."""

import contextlib
import signal
from collections.abc import Callable, Iterator

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
