"""How far the tap has come in the stream of messages. What happened *there* counts, not what the tap's own clock says:
a tap that was down reads yesterday's messages today, and no edge is gone because of it."""

# Seconds by which a message may lie ahead of the tap's own clock: clocks differ, and a stranger may say anything.
AHEAD = 5
# Seconds that are jumped over: then messages are missing between.
JUMP = 10
# Seconds without any message, of a tap that is connected: then there is none.
IDLE = 5
# Seconds by which messages are late that were not held up.
LAG = 5


class Clock:
    """In milliseconds."""

    def __init__(self) -> None:
        self.newest = 0
        """When the newest message that was read was sent."""
        self.since = 0
        """From when on messages were read without a gap."""
        self.late_at = 0
        """When the tap last read a message that was late."""
        self.broken_at = 0
        """When the tap last began to read, or to read again."""
        self._read_at = 0
        self._anew = True

    def read(self, now: int, sent: int | None) -> None:
        """A message, at ``now`` by the tap's clock."""
        self._read_at = now
        if sent is None:
            return
        self._go_on(min(sent, now + AHEAD * 1000))
        if now - sent > LAG * 1000:
            self.late_at = now

    def tick(self, now: int, *, drained: bool) -> None:
        """``drained``: the tap is connected, and nothing that it has read is unfinished."""
        if drained and self.newest and now - self._read_at > IDLE * 1000:
            self._go_on(now)

    def broken(self, now: int) -> None:
        """The connection is new: what was before it says nothing about what comes."""
        self.broken_at, self._read_at = now, now
        self._anew = True

    def _go_on(self, to: int) -> None:
        if to <= self.newest:
            return
        if self._anew or to - self.newest > JUMP * 1000:
            self.since, self._anew = to, False
        self.newest = to
