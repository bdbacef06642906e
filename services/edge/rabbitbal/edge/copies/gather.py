"""Every copy's answer, put together."""

import asyncio

import structlog

from rabbitbal.edge.copies.group import Copy
from rabbitbal.edge.copies.multipart import Part, message_of
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.ticket import Ending
from rabbitbal.runtime.streams import Broken
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import content_length
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason

log = structlog.get_logger()


class _Failed(Exception):
    """There is no answer of an application to show for this part."""

    def __init__(self, reason: Reason, response: Response | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.response = response


class Gather:
    """Collects parts with bodies of at most ``limit`` bytes. ``release`` must be called when they are not needed."""

    def __init__(self, pending: Pending, limit: int) -> None:
        self._pending = pending
        self._limit = limit
        self._held = 0

    async def parts(self, copies: list[Copy]) -> list[Part]:
        """One for each copy, in their order, when the last has ended."""
        async with asyncio.TaskGroup() as tasks:
            parts = [tasks.create_task(self._part(copy)) for copy in copies]
        return [part.result() for part in parts]

    def release(self) -> None:
        self._pending.release(self._held)
        self._held = 0

    async def _part(self, copy: Copy) -> Part:
        # Shielded: whoever gives this up has a group to end.
        ending = await asyncio.shield(copy.task)
        try:
            return Part(copy.order.key, ending.pool, None, await self._message(ending))
        except _Failed as failed:
            response = failed.response or self._pending.error(failed.reason)
            return Part(copy.order.key, ending.pool, failed.reason, message_of(response))

    async def _message(self, ending: Ending) -> bytes:
        """An application's answer. Raises _Failed."""
        if ending.reason is not None:
            if ending.stream is not None:
                self._pending.close(ending, ending.reason, 0)
            raise _Failed(ending.reason)
        response = ending.response
        if ending.stream is not None:
            response = await self._collected(ending)
        else:
            self._hold(0, len(response.body))
        try:
            message = message_of(response)
        except WireError as error:
            # Its head came with hardly a byte to spare, and has a length now.
            raise _Failed(Reason.BAD_RESPONSE) from error
        self._hold(0, len(message) - len(response.body), bounded=False)
        return message

    async def _collected(self, ending: Ending) -> Response:
        """A streamed response as a whole one. Raises _Failed. Whatever happens the stream is closed, or its worker
        would go on for nobody."""
        assert ending.stream is not None  # noqa: S101 - the caller has looked
        response = ending.response
        pieces, size = [response.body], len(response.body)
        reason: Reason | None = Reason.CLIENT_GONE
        try:
            self._hold(0, size)
            # The deadline is that of the head; a stream could go on for ever.
            async with asyncio.timeout_at(ending.stream.deadline):
                while piece := await ending.stream.read():
                    self._hold(size, len(piece))
                    pieces.append(piece)
                    size += len(piece)
            declared = content_length(response.fields)
            if declared is not None and declared != size:
                raise _Failed(Reason.BAD_RESPONSE)
            reason = None
            return Response(response.status, response.fields, b"".join(pieces))
        except _Failed as failed:
            reason = failed.reason
            raise
        except TimeoutError:
            reason = Reason.WORKER_TIMEOUT
            raise _Failed(reason) from None
        except Broken as broken:
            reason = broken.reason or Reason.WORKER_LOST
            log.info("part.broken", id=ending.stream.envelope.correlation_id, why=str(broken))
            raise _Failed(reason) from broken
        finally:
            self._pending.close(ending, reason, size)

    def _hold(self, size: int, more: int, *, bounded: bool = True) -> None:
        """Count ``more`` bytes behind ``size`` of a part. Raises _Failed."""
        if bounded and size + more > self._limit:
            raise _Failed(Reason.BAD_RESPONSE, _too_large())
        if not self._pending.hold(more):
            raise _Failed(Reason.OVERLOADED)
        self._held += more


def _too_large() -> Response:
    text = b"rabbitbal: bad-response: this part is larger than the route's part_limit\n"
    fields = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"Content-Length", b"%d" % len(text))]
    return Response(502, fields, text)
