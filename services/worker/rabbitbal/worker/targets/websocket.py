"""A WebSocket as an ASGI application sees it: ``receive`` and ``send``."""

import asyncio
from enum import Enum, auto
from typing import Any, Never

from rabbitbal.worker.targets.contract import Answer, BadResponse, Body
from rabbitbal.worker.targets.exchange import ClientGone, Reply, fields_of
from rabbitbal.worker.targets.lifespan import Message
from rabbitbal.worker.targets.websocket_connection import ABNORMAL, Connection, Times
from rabbitbal.worker.targets.websocket_handshake import RESERVED, Handshake
from rabbitbal.worker.targets.websocket_queues import Inbox

GOING_AWAY = 1001
INTERNAL_ERROR = 1011


class _State(Enum):
    CONNECTING = auto()
    DENYING = auto()
    OPEN = auto()
    CLOSED = auto()  # by the application


class WebSocket:
    """``failed`` is done when the application has misused it."""

    def __init__(self, handshake: Handshake, body: Body, answer: Answer, times: Times) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.misuse: BadResponse | None = None
        self.lost: OSError | None = None
        """The client is gone."""
        self._handshake = handshake
        self._answer = answer
        self._inbox = Inbox()
        self._connection = Connection(handshake.protocol, body, answer, self._inbox, times)
        self._denial = Reply(answer, "websocket.http.response")
        self._state = _State.CONNECTING
        self._accepted = False
        self._told = False

    @property
    def complete(self) -> bool:
        """Nothing is missing when the application returns."""
        return self._state in (_State.OPEN, _State.CLOSED)

    @property
    def unfinished(self) -> str:
        """What is missing when the application returns."""
        if self._state is _State.DENYING:
            return self._denial.unfinished
        return "the application returned without accepting or closing the WebSocket"

    def disconnect(self, error: OSError | None = None) -> None:
        """The client is gone."""
        self.lost = self.lost or error or ClientGone()
        self._inbox.end(ABNORMAL)

    def going_away(self) -> None:
        """The worker is."""
        if self._state is _State.OPEN:
            self._connection.close(GOING_AWAY)

    async def close(self, *, failed: bool) -> None:
        """What is to be done when the application has ended. Raises OSError where the client takes no end."""
        if self._accepted:
            # Who returns without closing has nothing more to say.
            self._connection.close(INTERNAL_ERROR if failed else 1000)
            await self._connection.ended()

    def stop(self) -> None:
        self._inbox.end(ABNORMAL)
        self._connection.stop()

    async def receive(self) -> Message:
        if self._told:
            raise BadResponse("receive called after 'websocket.disconnect'")
        message = await self._inbox.take()
        self._told = message["type"] == "websocket.disconnect"
        return message

    async def send(self, message: Message) -> None:
        if self.misuse is not None:
            raise self.misuse
        if self.lost is not None:
            raise ClientGone from self.lost
        try:
            await self._send(message)
        except BadResponse as error:
            self._fail(error)
        except ClientGone:
            raise
        except OSError as error:
            self.disconnect(error)
            raise ClientGone from error

    async def _send(self, message: Message) -> None:
        match self._state, message.get("type"):
            case _State.CONNECTING, "websocket.accept":
                await self._accept(message)
            case _State.CONNECTING, "websocket.close":
                await self._deny()
            case (_State.CONNECTING, "websocket.http.response.start") | (_State.DENYING, _):
                self._state = _State.DENYING
                await self._denial.send(message)
                if self._denial.complete:
                    self._closed()
            case _State.OPEN, "websocket.send":
                try:
                    await self._connection.send(_content(message))
                except UnicodeEncodeError:
                    raise BadResponse("text cannot be encoded as UTF-8") from None
            case _State.OPEN, "websocket.close":
                code, reason = _close(message)
                if self._inbox.ended:
                    raise ClientGone
                self._connection.close(code, reason)
                self._state = _State.CLOSED
            case _State.OPEN, "websocket.accept":
                raise BadResponse("second 'websocket.accept'")
            case _State.CONNECTING, "websocket.send":
                raise BadResponse("'websocket.send' sent before 'websocket.accept'")
            case _State.CLOSED, kind:
                raise BadResponse(f"{kind!r} sent after the WebSocket was closed")
            case _, kind:
                raise BadResponse(f"{kind!r} is not a message of a WebSocket")

    async def _accept(self, message: Message) -> None:
        subprotocol = message.get("subprotocol")
        if not isinstance(subprotocol, str | None) or not (subprotocol or "").isascii():
            raise BadResponse(f"subprotocol {subprotocol!r:.40} is not an ASCII string")
        fields = fields_of({**message, "headers": message.get("headers") or ()})
        for name, _ in fields:
            if name.lower() in RESERVED:
                raise BadResponse(f"header {name!r} of 'websocket.accept' is the server's own")
        await self._connection.open(self._handshake.accepted(subprotocol or None, fields))
        self._state = _State.OPEN
        self._accepted = True

    async def _deny(self) -> None:
        denied = self._handshake.denied()
        await self._answer.start(denied.status, denied.fields)
        await self._answer.finish()
        self._closed()

    def _closed(self) -> None:
        self._state = _State.CLOSED
        self._inbox.end(ABNORMAL)

    def _fail(self, error: BadResponse) -> Never:
        # What was closed in order stays so.
        if self._state is not _State.CLOSED:
            self.misuse = error
            self._inbox.end(ABNORMAL)
            if not self.failed.done():
                self.failed.set_result(None)
        raise error from None


def _content(message: Message) -> str | bytes:
    text, data = message.get("text"), message.get("bytes")
    # "Exactly one of bytes or text must be non-None."
    if (text is None) == (data is None):
        which = "neither" if text is None else "both"
        raise BadResponse(f"'websocket.send' has {which} of text and bytes")
    if text is not None:
        if not isinstance(text, str):
            raise BadResponse(f"text is {type(text).__name__}, not str")
        return text
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BadResponse(f"bytes is {type(data).__name__}, not bytes")
    return bytes(data)


def _close(message: Message) -> tuple[int, str]:
    code: Any = message.get("code", 1000)
    reason: Any = message.get("reason") or ""
    if not isinstance(code, int) or not isinstance(reason, str):
        raise BadResponse(f"code {code!r:.40} and reason {reason!r:.40} of 'websocket.close' are not int and str")
    return code, reason
