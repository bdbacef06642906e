"""Flow control of a body that travels in pieces: who may send how much, and in which order. No clock, no broker.

The receiver grants *credit*: the sum of the costs of all `body` messages that it takes, counted from the start of the
attempt. A grant that comes twice, or late, changes nothing, as only a larger one counts (so does MAX_STREAM_DATA of
QUIC, RFC 9000 §4.1).
"""

from rabbitbal.wire.errors import WireError

# A body up to this size that is there at once travels with its head.
INLINE = 64 * 1024
# The largest payload of one `body` message.
CHUNK = 64 * 1024
# What a message costs besides its payload, so that a flood of tiny pieces is bounded, too.
OVERHEAD = 256
# How far a sender may be ahead of its receiver, which is what a slow client costs: at first, and in a long body.
FIRST_WINDOW = 64 * 1024
WINDOW = 256 * 1024


def cost(payload: bytes) -> int:
    return len(payload) + OVERHEAD


class Outflow:
    """The sender's side."""

    __slots__ = ("granted", "sequence", "spent")

    def __init__(self, granted: int = 0) -> None:
        self.granted = granted
        self.spent = 0
        self.sequence = 0

    def grant(self, credit: int) -> None:
        self.granted = max(self.granted, credit)

    @property
    def room(self) -> int:
        """Bytes of payload that the next message may have, 0 where there is no credit."""
        return max(0, min(CHUNK, self.granted - self.spent - OVERHEAD))

    def send(self, payload: bytes, *, last: bool) -> int:
        """The sequence number of the next message. A last message without payload needs no credit."""
        if payload or not last:
            self.spent += cost(payload)
        self.sequence += 1
        return self.sequence


class Inflow:
    """The receiver's side. ``window`` is what it is ready to hold, in units of cost."""

    __slots__ = ("ended", "granted", "received", "sequence", "taken", "window")

    def __init__(self, window: int = WINDOW) -> None:
        self.window = window
        self.granted = window
        self.received = 0
        self.taken = 0
        self.sequence = 0
        self.ended = False

    def receive(self, sequence: int, payload: bytes, *, more: bool) -> None:
        """Count a message in. Raises WireError for one that is out of order, over the credit, or behind the last."""
        if self.ended:
            raise WireError("a piece of body behind the last one")
        if sequence != self.sequence + 1:
            raise WireError(f"piece {sequence} of a body came after piece {self.sequence}")
        if len(payload) > CHUNK:
            raise WireError(f"a piece of body is larger than {CHUNK} bytes")
        if payload or more:
            self.received += cost(payload)
        if self.received > self.granted:
            raise WireError("more body than there was credit for")
        self.sequence = sequence
        self.ended = not more

    def widen(self, window: int) -> int:
        """Be ready to hold more from now on. The credit to announce."""
        self.window = max(self.window, window)
        self.granted = max(self.granted, self.taken + self.window)
        return self.granted

    def take(self, payload: bytes) -> int | None:
        """A received message was used up. The credit to announce, or None where that can wait."""
        self.taken += cost(payload)
        credit = self.taken + self.window
        # Half a window at a time: few messages, and the sender never runs dry while the receiver keeps up.
        if self.ended or credit - self.granted < self.window // 2:
            return None
        self.granted = credit
        return credit
