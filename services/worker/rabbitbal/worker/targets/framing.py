"""Collects one response and makes its framing true: no target builds a `Response` by itself."""

from collections.abc import Iterable

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Field, Fields, check_field, content_length, end_to_end, without
from rabbitbal.wire.message import Response
from rabbitbal.worker.targets.contract import BadResponse


class BufferedResponse:
    """The response to one request: ``start``, any number of ``write``, ``finish``. All raise BadResponse."""

    def __init__(self, method: str, limit: int) -> None:
        self._head_only = method == "HEAD"
        self._limit = limit
        self._status = 0
        self._fields: Fields = []
        self._declared: int | None = None
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def started(self) -> bool:
        return self._status != 0

    @property
    def size(self) -> int:
        """Bytes of body so far."""
        return self._size

    def start(self, status: int, fields: Iterable[Field]) -> None:
        if not 200 <= status <= 599:
            raise BadResponse(f"status {status} is not that of a final response (200 to 599)")
        fields = list(fields)
        try:
            for name, value in fields:
                check_field(name, value)
            declared = content_length(fields)
        except WireError as error:
            raise BadResponse(f"invalid header: {error}") from None
        if declared is not None and declared > self._limit and self._may_have_body(status):
            raise BadResponse(f"Content-Length {declared} is larger than the response limit of {self._limit} bytes")
        self._status, self._fields, self._declared = status, end_to_end(fields), declared

    def write(self, chunk: bytes) -> None:
        if not self._may_have_body(self._status):
            return
        self._size += len(chunk)
        if self._size > self._limit:
            raise BadResponse(f"body is larger than the response limit of {self._limit} bytes")
        self._chunks.append(chunk)

    def finish(self) -> Response:
        fields = self._fields
        if self._status == 204:
            # RFC 9110 §8.6: "A server MUST NOT send a Content-Length header field in any response with a status code
            # of 1xx (Informational) or 204 (No Content)."
            fields = without(fields, b"content-length")
        elif self._may_have_body(self._status):
            if self._declared is None:
                fields = [*fields, (b"Content-Length", b"%d" % self._size)]
            elif self._declared != self._size:
                raise BadResponse(f"Content-Length is {self._declared} but the body has {self._size} bytes")
        return Response(self._status, fields, b"".join(self._chunks))

    def _may_have_body(self, status: int) -> bool:
        # RFC 9110 §6.4.1: "Responses to the HEAD request method ... never include content"; "All 1xx (Informational),
        # 204 (No Content), and 304 (Not Modified) responses do not include content." What a HEAD or 304 declares is
        # the length that a GET would have had (§8.6), so it stays and is compared with nothing.
        return not self._head_only and status not in (204, 304)
