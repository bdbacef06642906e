"""How much may be sent twice: a share of all requests, saved up to a few."""

# Late requests come in crowds; more than this at once would be a second crowd.
MOST_SAVED = 10.0


class Budget:
    """A bucket of tokens that each request fills by its share, and each hedge takes one from."""

    def __init__(self) -> None:
        self._tokens = 1.0

    def earn(self, share: float) -> None:
        self._tokens = min(self._tokens + share, MOST_SAVED)

    def spend(self) -> bool:
        """False where there is nothing left."""
        # Thirty-three shares of 0.03 are not quite one in floating point.
        if self._tokens < 1 - 1e-9:
            return False
        self._tokens -= 1
        return True
