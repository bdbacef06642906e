"""Waiting in tests: to a deadline, never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], what: str, timeout: float = 15.0, period: float = 0.1) -> T:
    """The first true value of ``check``. Raises AssertionError with what was seen last."""
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}; last seen: {value!r}")
        time.sleep(period)
