"""uvicorn's HTTP protocol with limits on the head, and with our own words for what it refuses.

uvicorn on httptools collects a head of any size and pipelined requests in any number; nginx in front does not let that
happen, but an edge must stand by itself.
"""

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Sized
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rabbitbal.edge.tunnel import LINGER, READ_AHEAD, Tunnel
from rabbitbal.wire.fields import Fields
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason, error_response

# What the scope of a request tells beyond ASGI: the target as it came, the `EdgeProtocol` that it came by, uvicorn's
# cycle of it, and the protocol that the client wants to go on with (None, or "websocket").
TARGET = "rabbitbal.target"
CONNECTION = "rabbitbal.connection"
CYCLE = "rabbitbal.cycle"
UPGRADE = "rabbitbal.upgrade"
# What says where a request's body ends (RFC 9112 §6.3).
FRAMING = (b"content-length", b"transfer-encoding")
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
    # What a client that asked for an upgrade has sent behind its request; it should have waited for the answer.
    _early: bytes | None = None
    # The message being parsed asks for an upgrade that it does not get.
    _ignored = False
    # The parser is new, and reads again how the body is framed of a message whose head the one before it has read.
    _resuming = False
    _deaf = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gone: Callable[[], None] | None = None
        """Called when the connection is lost while a request is being answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.gone is not None:
            self.gone()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._early is not None:
            self._early += data
            if len(self._early) > READ_AHEAD:
                self.transport.pause_reading()
            return
        self._unreported += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser stops behind a request that asks to go on with another protocol, whichever it is.
            rest = data[upgrade.args[0] :]
            if self.scope.get(UPGRADE) is not None:
                self._early = rest
                self.cycle.keep_alive = False
            else:
                self._go_on(rest)
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        if self._unreported > self.header_limit and not self.transport.is_closing():
            self._refusal = Reason.HEADER_TOO_LARGE
            self.send_400_response("")

    def _go_on(self, rest: bytes) -> None:
        """Read a request as an ordinary one, though it asks for another protocol (RFC 9110 §7.8). The parser
        takes it to end with its head, body or not; the body would be read as the next request."""
        framing = [field for field in self.headers if field[0] in FRAMING]
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn has it.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._ignored, self._resuming = False, True
        self.data_received(b"".join([b"POST / HTTP/1.1\r\n", *(b"%s: %s\r\n" % field for field in framing), b"\r\n"]))
        if rest and not self.transport.is_closing():
            self.data_received(rest)

    def on_message_begin(self) -> None:
        if self._resuming:
            return
        super().on_message_begin()
        self._head_size = self._unreported = 0
        self._in_trailer = False

    def on_url(self, url: bytes) -> None:
        self._unreported = 0
        if self._resuming:
            return
        super().on_url(url)
        if len(self.url) > self.target_limit:
            self._refuse(Reason.TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unreported = 0
        if self._resuming:
            return
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self.header_limit:
            self._refuse(Reason.HEADER_TOO_LARGE)
        # RFC 9110 §6.5.1: "a recipient MUST NOT merge a trailer field into a header section" unless its definition
        # permits it; trailers do not travel through the broker.
        if not self._in_trailer:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unreported = 0
        if self._resuming:
            self._resuming = False
            return
        self._in_trailer = True
        # The target as it came: uvicorn's raw_path and query_string lose the "?" of an empty query.
        extension: dict[str, Any] = self.scope  # type: ignore[assignment]
        extension[TARGET] = self.url
        extension[CONNECTION] = self
        extension[UPGRADE] = self._wanted()
        self._ignored = self.parser.should_upgrade() and extension[UPGRADE] is None
        # uvicorn takes paths apart for frameworks, and fails on an absolute target without one.
        if not self.url.startswith(RESERVED):
            self.url = b"/"
        super().on_headers_complete()
        extension[CYCLE] = self.cycle

    def on_body(self, body: bytes) -> None:
        self._unreported = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unreported = 0
        if not self._ignored:
            super().on_message_complete()

    def _wanted(self) -> str | None:
        """RFC 6455 §4.1: a GET of HTTP/1.1 or later, without a body."""
        if self._get_upgrade() != b"websocket" or self.parser.get_method() != b"GET":
            return None
        framed = any(name in FRAMING for name, _ in self.headers)
        return None if framed or self.parser.get_http_version() != "1.1" else "websocket"

    def switch(self, fields: Fields) -> Tunnel:
        """Answer 101 (RFC 9110 §15.2.2) and leave HTTP."""
        lines = [b"HTTP/1.1 101 Switching Protocols\r\n", *(b"%s: %s\r\n" % field for field in fields), b"\r\n"]
        self.transport.write(b"".join(lines))
        # For uvicorn the request is over, and so is the connection.
        self.cycle.disconnected = True
        tunnel = Tunnel(self.transport, self._early or b"", self.connections.discard)
        self.connections.discard(self)
        self.connections.add(tunnel)  # type: ignore[arg-type]
        self.transport.set_protocol(tunnel)
        return tunnel

    def take_no_more(self) -> None:
        """What the client still sends is dropped, and the connection is not used again."""
        self._deaf = True
        self.pipeline.clear()
        self.transport.resume_reading()

    def farewell(self) -> None:
        """Close once the client has seen the answer. Closing with bytes unread is a reset, which may destroy the answer
        on its way (RFC 9112 §9.6)."""
        self.take_no_more()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)

    def hang_up(self, cycle: RequestResponseCycle, *, whole: bool) -> None:
        """End the connection in the middle of a response. One whose body ends with the connection, and is not whole, is
        reset: else it would look whole."""
        cycle.disconnected = True
        if not whole and is_unframed(cycle):
            client = self.transport.get_extra_info("socket")
            # Linger for 0 seconds: what is unsent is dropped, and the close is a reset (socket(7)).
            # The client may have been quicker, and there is no socket any more.
            with contextlib.suppress(OSError, ValueError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

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
            if unanswered:
                # What runs for it has nobody left to answer.
                cycle.disconnected = True
                cycle.waiting_for_100_continue = False
                cycle.message_event.set()
            self.farewell()
        else:
            self.transport.close()


def unframe(cycle: RequestResponseCycle) -> None:
    """Let the response's body end with the connection (RFC 9112 §6.3): HTTP/1.0 has no chunks, uvicorn nothing else."""
    cycle.chunked_encoding = False
    cycle.expected_content_length = sys.maxsize


def is_unframed(cycle: RequestResponseCycle) -> bool:
    return cycle.expected_content_length > sys.maxsize // 2


def _raw(response: Response) -> bytes:
    lines = [b"HTTP/1.1 %d \r\n" % response.status]
    lines += [b"%s: %s\r\n" % field for field in response.fields]
    return b"".join([*lines, b"Connection: close\r\n\r\n", response.body])
