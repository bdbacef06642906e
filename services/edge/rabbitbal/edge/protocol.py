"""uvicorn's HTTP protocol with limits on the head, and with our own words for what it refuses.

uvicorn on httptools collects a head of any size; nginx in front limits it, but an edge must stand by itself.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason, error_response

TARGET = "rabbitbal.target"


class _Refused(Exception):
    """Raised inside a parser callback to stop the parser."""


class EdgeProtocol(HttpToolsProtocol):
    """One client connection. The limits are class attributes because uvicorn makes the instances."""

    header_limit = 32 * 1024
    target_limit = 8 * 1024

    _head_size = 0
    _refusal: Reason | None = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.target_limit:
            self._refuse(Reason.TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self.header_limit:
            self._refuse(Reason.HEADER_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        # The target as it came: uvicorn's raw_path and query_string lose the "?" of an empty query.
        extension: dict[str, Any] = self.scope  # type: ignore[assignment]
        extension[TARGET] = self.url
        super().on_headers_complete()

    def _refuse(self, reason: Reason) -> None:
        self._refusal = reason
        raise _Refused

    def send_400_response(self, msg: str) -> None:
        response = error_response(self._refusal or Reason.BAD_REQUEST)
        # Bytes that cannot be parsed behind a request that is still being answered: there is no place for an answer.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_raw(response))
        self.transport.close()


def _raw(response: Response) -> bytes:
    lines = [b"HTTP/1.1 %d \r\n" % response.status]
    lines += [b"%s: %s\r\n" % field for field in response.fields]
    return b"".join([*lines, b"Connection: close\r\n\r\n", response.body])
