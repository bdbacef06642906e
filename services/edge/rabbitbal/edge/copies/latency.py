"""What is late for a route: a quantile of recent times, in bounded memory."""

import itertools
import math
from array import array

# Each bucket is five per cent wider than the one before it, from 0.1 ms on; the last one begins beyond 1500 s.
WIDTH = math.log(1.05)
LEAST = 1e-4
BUCKETS = 342
# A quantile of fewer samples is no quantile.
ENOUGH = 100
# After so many samples, older ones count half.
MEMORY = 1000
FRESH = 20


class Latency:
    """Samples are seconds. The answer is at most five per cent above the true quantile.

    Where late requests are hedged, the time that counts is that of the quicker copy: it hides how late the first one
    would have been, and never makes the quantile smaller than the wait before the hedge.
    """

    def __init__(self, quantile: float = 0.95) -> None:
        self.quantile = quantile
        """May be changed: it counts some samples later."""
        self._counts = array("d", [0.0] * BUCKETS)
        self._total = 0.0
        self._samples = 0
        self._known: float | None = None

    def add(self, seconds: float) -> None:
        bucket = int(math.log(max(seconds, LEAST) / LEAST) / WIDTH)
        self._counts[min(bucket, BUCKETS - 1)] += 1
        self._total += 1
        self._samples += 1
        if self._samples % MEMORY == 0:
            self._counts = array("d", (count / 2 for count in self._counts))
            self._total /= 2
        if self._samples >= ENOUGH and (self._known is None or self._samples % FRESH == 0):
            self._known = self._compute()

    def late(self) -> float | None:
        """Seconds; None while too little is known."""
        return self._known

    def _compute(self) -> float:
        wanted = self._total * self.quantile
        sums = itertools.accumulate(self._counts)
        bucket = next(number for number, seen in enumerate(sums) if seen >= wanted * (1 - 1e-9))
        return float(LEAST * math.exp(WIDTH * (bucket + 1)))
