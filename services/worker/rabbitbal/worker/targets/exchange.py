"""One request and its response as an ASGI application sees them: ``receive`` and ``send``."""

import asyncio
from typing import Any, Never

from rabbitbal.wire.fields import Fields
from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets.contract import BadResponse
from rabbitbal.worker.targets.framing import BufferedResponse
from rabbitbal.worker.targets.lifespan import Message


class Exchange:
    """``ended`` is done once the response is complete or nobody waits for it any longer."""

    def __init__(self, request: Request, limit: int) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.response: Response | None = None
        self.misuse: BadResponse | None = None
        self._body: bytes | None = request.body
        self._buffer = BufferedResponse(request.method, limit)

    @property
    def unfinished(self) -> str:
        """What is missing when the application returns."""
        if self._buffer.started:
            return "the application returned without completing its response (no last http.response.body)"
        return "the application returned without sending a response"

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    async def receive(self) -> Message:
        if self._body is not None and not self.ended.done():
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        # "Sent to the application if receive is called after a response has been sent or after the HTTP connection has
        # been closed." wait() and not await: a cancelled receive must not cancel the future of all.
        if not self.ended.done():
            await asyncio.wait((self.ended,))
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.misuse is not None:
            raise self.misuse
        kind = message.get("type")
        if self.ended.done():
            self._fail(f"{kind!r} sent after the response was complete")
        try:
            match kind, self._buffer.started:
                case "http.response.start", False:
                    self._buffer.start(_status(message), _fields(message))
                case "http.response.start", True:
                    raise BadResponse("second 'http.response.start'")
                case "http.response.body", True:
                    self._write(message)
                case "http.response.body", False:
                    raise BadResponse("'http.response.body' sent before 'http.response.start'")
                case _:
                    raise BadResponse(f"{kind!r} is not a message of an HTTP response")
        except BadResponse as error:
            self._fail(str(error))

    def _write(self, message: Message) -> None:
        body = message.get("body", b"")
        if not isinstance(body, bytes | bytearray | memoryview):
            raise BadResponse(f"body is {type(body).__name__}, not bytes")
        # A copy of what the application may change later.
        self._buffer.write(bytes(body))
        if not message.get("more_body", False):
            self.response = self._buffer.finish()
            self.end()

    def _fail(self, text: str) -> Never:
        error = BadResponse(text)
        # A response that is complete is on its way: nothing that follows can take it back.
        if not self.ended.done():
            self.misuse = error
        raise error from None


def _status(message: Message) -> int:
    status = message.get("status")
    if not isinstance(status, int) or isinstance(status, bool):
        raise BadResponse(f"status {status!r:.40} of 'http.response.start' is not an integer")
    return int(status)


def _fields(message: Message) -> Fields:
    headers: Any = message.get("headers", ())
    fields: Fields = []
    try:
        for name, value in headers:
            if not isinstance(name, bytes) or not isinstance(value, bytes):
                raise TypeError
            fields.append((name, value))
    except (TypeError, ValueError):
        raise BadResponse("headers are not an iterable of (bytes, bytes) pairs") from None
    return fields
