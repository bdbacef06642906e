"""What HTTP asks of one response, whoever makes it: no target checks this by itself. No clock, no broker."""

from collections.abc import Iterable

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Field, Fields, check_field, content_length, end_to_end, without
from rabbitbal.wire.message import Request
from rabbitbal.worker.targets.contract import BadResponse

# The sum of a response's fields in bytes. nginx in front of the edge takes a head of a little more.
MOST_FIELDS = 64 * 1024


class Framing:
    """Everything raises BadResponse; what passed here can be encoded."""

    def __init__(self, request: Request) -> None:
        self._head_only = request.method == "HEAD"
        self._upgrade = request.upgrade is not None
        self._fields: Fields = []
        self._declared: int | None = None
        self._size = 0
        self.status = 0

    @property
    def bodiless(self) -> bool:
        # RFC 9110 §6.4.1: "Responses to the HEAD request method ... never include content"; "All 1xx (Informational),
        # 204 (No Content), and 304 (Not Modified) responses do not include content." What a HEAD or 304 declares is
        # the length that a GET would have had (§8.6), so it stays and is compared with nothing.
        return self._head_only or self.status in (204, 304)

    @property
    def upgraded(self) -> bool:
        """What follows are the bytes of another protocol."""
        return self.status == 101

    def start(self, status: int, fields: Iterable[Field]) -> None:
        if self.status:
            raise BadResponse("the response was started a second time")
        if not 200 <= status <= 599 and not (status == 101 and self._upgrade):
            raise BadResponse(f"status {status} is not that of a final response (200 to 599)")
        fields = list(fields)
        try:
            for name, value in fields:
                check_field(name, value)
            declared = content_length(fields)
        except WireError as error:
            raise BadResponse(f"invalid header: {error}") from None
        fields = end_to_end(fields)
        if sum(len(name) + len(value) + 4 for name, value in fields) > MOST_FIELDS:
            raise BadResponse(f"the header fields are larger than {MOST_FIELDS} bytes")
        if status in (101, 204):
            # RFC 9110 §8.6: "A server MUST NOT send a Content-Length header field in any response with a status code
            # of 1xx (Informational) or 204 (No Content)."
            fields, declared = without(fields, b"content-length"), None
        self.status, self._fields, self._declared = status, fields, declared

    def count(self, size: int) -> None:
        """That many bytes of body more."""
        if not self.status:
            raise BadResponse("body before the response was started")
        self._size += size
        if self._declared is not None and self._size > self._declared and not self.bodiless:
            raise BadResponse(f"Content-Length is {self._declared} but the body has {self._size} bytes or more")

    def finish(self) -> None:
        if not self.status:
            raise BadResponse("the response was finished before it was started")
        if self._declared not in (None, self._size) and not self.bodiless:
            raise BadResponse(f"Content-Length is {self._declared} but the body has {self._size} bytes")

    def fields(self, *, complete: bool) -> Fields:
        """The fields to send. ``complete``: all of the body was counted, so its length is known."""
        if complete and self._declared is None and not self.bodiless and not self.upgraded:
            return [*self._fields, (b"Content-Length", b"%d" % self._size)]
        return self._fields
