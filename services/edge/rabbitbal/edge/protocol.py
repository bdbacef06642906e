"""uvicorn's HTTP protocol with limits on the head, and with our own words for what it refuses.

uvicorn on httptools collects a head of any size and pipelined requests in any number; nginx in front does not let that
happen, but an edge must stand by itself.
"""

import asyncio
from collections.abc import Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason, error_response

TARGET = "rabbitbal.target"
# Our own endpoints; every other target is for the workers.
RESERVED = b"/_rabbitbal/"


class _Refused(Exception):
    """Raised inside a parser callback to stop the parser."""


class _Flow(FlowControl):
    """Reads no further while requests that were sent ahead wait for their turn."""

    def __init__(self, transport: asyncio.Transport, ahead: Sized) -> None:
        super().__init__(transport)
        self._ahead = ahead

    def resume_reading(self) -> None:
        if not self._ahead:
            super().resume_reading()


class EdgeProtocol(HttpToolsProtocol):
    """One client connection. The limits are class attributes because uvicorn makes the instances."""

    header_limit = 32 * 1024
    target_limit = 8 * 1024

    _head_size = 0
    _in_trailer = False
    # Bytes since the parser last gave us anything: it keeps a field line to itself until the line is whole.
    _unreported = 0
    _refusal: Reason | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)

    def data_received(self, data: bytes) -> None:
        self._unreported += len(data)
        super().data_received(data)
        if self._unreported > self.header_limit and not self.transport.is_closing():
            self._refusal = Reason.HEADER_TOO_LARGE
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_size = self._unreported = 0
        self._in_trailer = False

    def on_url(self, url: bytes) -> None:
        self._unreported = 0
        super().on_url(url)
        if len(self.url) > self.target_limit:
            self._refuse(Reason.TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unreported = 0
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self.header_limit:
            self._refuse(Reason.HEADER_TOO_LARGE)
        # RFC 9110 §6.5.1: "a recipient MUST NOT merge a trailer field into a header section" unless its definition
        # permits it; trailers do not travel through the broker.
        if not self._in_trailer:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unreported = 0
        self._in_trailer = True
        # The target as it came: uvicorn's raw_path and query_string lose the "?" of an empty query.
        extension: dict[str, Any] = self.scope  # type: ignore[assignment]
        extension[TARGET] = self.url
        # uvicorn takes paths apart for frameworks, and fails on an absolute target without one.
        if not self.url.startswith(RESERVED):
            self.url = b"/"
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unreported = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unreported = 0
        super().on_message_complete()

    def _refuse(self, reason: Reason) -> None:
        self._refusal = reason
        raise _Refused

    def send_400_response(self, msg: str) -> None:
        response = error_response(self._refusal or Reason.BAD_REQUEST)
        # Bytes that cannot be parsed behind a request that is still being answered: there is no place for an answer.
        # In the middle of a request there is, if none before it waits for its own.
        cycle = self.cycle
        unanswered = cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline
        if cycle is None or cycle.response_complete or unanswered:
            self.transport.write(_raw(response))
        self.transport.close()


def _raw(response: Response) -> bytes:
    lines = [b"HTTP/1.1 %d \r\n" % response.status]
    lines += [b"%s: %s\r\n" % field for field in response.fields]
    return b"".join([*lines, b"Connection: close\r\n\r\n", response.body])
