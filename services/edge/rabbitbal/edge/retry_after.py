"""How long a client should stay away when there is no room: the wait that recent requests had in the queue."""

WEIGHT = 0.05
SHORTEST, LONGEST = 1, 120


class QueueWait:
    """A moving average, in seconds, of the time that requests spent waiting rather than running.

    When the queue is full its wait is its length divided by the rate at which it drains, and that is also what the
    requests now coming back have just waited: no need to ask the broker.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.seconds += WEIGHT * (max(seconds, 0.0) - self.seconds)

    def retry_after(self) -> int:
        return min(max(round(self.seconds) + 1, SHORTEST), LONGEST)
