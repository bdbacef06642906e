"""Where the frames of a WebSocket begin and end (RFC 6455 §5.2). Nothing is decoded, and nothing is kept."""

CLOSE = 0x8
# RFC 6455 §7.4.1: "1001 indicates that an endpoint is "going away", such as a server going down". A Close frame of two
# bytes, not masked, as a server sends it.
GOING_AWAY = b"\x88\x02" + (1001).to_bytes(2, "big")


class Frames:
    """Follows the bytes of one direction, however they are cut."""

    __slots__ = ("_head", "_left", "closed")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.closed = False
        """A Close frame has begun: nothing may follow it."""

    @property
    def between(self) -> bool:
        """The last frame is complete, and the next has not begun."""
        return not (self._head or self._left)

    def follow(self, data: bytes, *, all_of_it: bool = True) -> int:
        """Follow the next bytes: all of them, or only to the end of the frame that they begin in. How many that are."""
        at = 0
        while at < len(data):
            if self.between and len(data) - at > 1 and data[at + 1] < 126 and data[at] & 0x0F != CLOSE:
                # What most frames are: short, and not masked as they come from a server. They can be many.
                self._left = data[at + 1]
                at += 2
            else:
                at = self._step(data, at)
            if not all_of_it and self.between:
                break
        return at

    def _step(self, data: bytes, at: int) -> int:
        if self._left:
            taken = min(self._left, len(data) - at)
            self._left -= taken
            return at + taken
        needed = _head_size(self._head) - len(self._head)
        part = data[at : at + needed]
        self._head += part
        if len(self._head) >= 2 and len(self._head) == _head_size(self._head):
            self.closed = self.closed or self._head[0] & 0x0F == CLOSE
            self._left = _payload_size(self._head)
            self._head = b""
        return at + len(part)


def _head_size(head: bytes) -> int:
    """Of a frame whose first bytes these are; 2 until there are two."""
    if len(head) < 2:
        return 2
    length = head[1] & 0x7F
    return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if head[1] & 0x80 else 0)


def _payload_size(head: bytes) -> int:
    length = head[1] & 0x7F
    if length < 126:
        return length
    return int.from_bytes(head[2 : 4 if length == 126 else 10], "big")
