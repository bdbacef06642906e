"""Cancels that came before their request: an edge whose request nobody has claimed tells every worker."""

import time
from collections import OrderedDict

# Seconds that a cancel is remembered: no request waits longer in a queue than its route's timeout.
MEMORY = 600.0
MOST = 10_000


class Cancels:
    """Bounded: the oldest are forgotten first. A request that slips through costs its work and harms nobody.

    A cancel is for its attempt and those before: the edge may give up one and make another.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, correlation_id: str, attempt: int) -> None:
        now = time.monotonic()
        before, _ = self._known.pop(correlation_id, (0, 0.0))
        self._known[correlation_id] = (max(before, attempt), now + MEMORY)
        while len(self._known) > MOST or next(iter(self._known.values()))[1] <= now:
            self._known.popitem(last=False)

    def cover(self, correlation_id: str, attempt: int) -> bool:
        """Whether this attempt was cancelled."""
        cancelled, until = self._known.get(correlation_id, (0, 0.0))
        return attempt <= cancelled and time.monotonic() < until
