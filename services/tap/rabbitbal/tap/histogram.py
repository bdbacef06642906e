"""Latencies in little memory: a histogram whose buckets grow by the same factor, so that every quantile has the same
relative error, and that can be added to another.
"""

import math
from array import array
from bisect import bisect_left
from itertools import accumulate

# Milliseconds where the first bucket ends, and buckets for each doubling: a value is told within 9 %. The last bucket
# begins at about half an hour.
_LEAST = 0.05
_FINENESS = 8
BUCKETS = 25 * _FINENESS


class Histogram:
    """Of milliseconds."""

    __slots__ = ("count", "counts")

    def __init__(self) -> None:
        self.counts = array("I", bytes(4 * BUCKETS))
        self.count = 0

    def add(self, value: float) -> None:
        self.counts[_bucket(value)] += 1
        self.count += 1

    def merge(self, other: "Histogram") -> None:
        if other.count:
            self.counts = array("I", map(sum, zip(self.counts, other.counts, strict=True)))
            self.count += other.count

    def quantiles(self, *shares: float) -> list[float | None]:
        """For each share, the value that so many are not above. None where there is nothing."""
        if not self.count:
            return [None] * len(shares)
        passed = list(accumulate(self.counts))
        return [_value(bisect_left(passed, max(1, math.ceil(share * self.count)))) for share in shares]


def _bucket(value: float) -> int:
    # `not >` also takes nan.
    if not value > _LEAST:
        return 0
    return min(BUCKETS - 1, 1 + int(math.log2(value / _LEAST) * _FINENESS)) if value < math.inf else BUCKETS - 1


def _value(number: int) -> float:
    """The middle of a bucket, on the scale of its bounds."""
    return round(_LEAST * 2 ** ((number - 0.5) / _FINENESS), 3) if number else _LEAST
