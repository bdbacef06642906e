"""Every copy's answer, put together."""

import asyncio

import structlog

from rabbitbal.edge.copies.group import Copy
from rabbitbal.edge.copies.multipart import Part
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.ticket import Ending
from rabbitbal.runtime.streams import Broken
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import content_length
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason, error_response

log = structlog.get_logger()


class Gather:
    """Collects parts, each at most ``limit`` bytes long. ``release`` must be called when they are not needed."""

    def __init__(self, pending: Pending, limit: int) -> None:
        self._pending = pending
        self._limit = limit
        self._held = 0

    async def parts(self, copies: list[Copy]) -> list[Part]:
        """One for each copy, in their order, when the last has ended."""
        return list(await asyncio.gather(*(self._part(copy) for copy in copies)))

    def release(self) -> None:
        self._pending.release(self._held)
        self._held = 0

    async def _part(self, copy: Copy) -> Part:
        ending = await asyncio.shield(copy.task)
        response, reason = ending.response, ending.reason
        if ending.stream is not None:
            response, reason = await self._collect(copy, ending)
        elif reason is None and not self._hold(0, len(response.body)):
            response, reason = _too_large()
        return Part(copy.order.key, ending.pool, response, reason)

    async def _collect(self, copy: Copy, ending: Ending) -> tuple[Response, Reason | None]:
        """A streamed response as a whole one, or what became of it."""
        assert ending.stream is not None  # noqa: S101 - the caller has looked
        pieces, size = [ending.response.body], len(ending.response.body)
        # Whatever goes wrong, the stream must be closed, or its worker would go on for nobody.
        why: Reason | None = Reason.SUPERSEDED
        try:
            if not self._hold(0, size):
                why = Reason.BAD_RESPONSE
                return _too_large()
            while piece := await ending.stream.read():
                if not self._hold(size, len(piece)):
                    why = Reason.BAD_RESPONSE
                    return _too_large()
                pieces.append(piece)
                size += len(piece)
            declared = content_length(ending.response.fields)
            if declared is not None and declared != size:
                raise Broken("the body is not of the declared length", Reason.BAD_RESPONSE)
            why = None
            return Response(ending.response.status, ending.response.fields, b"".join(pieces)), None
        except (Broken, WireError) as error:
            why = (error.reason if isinstance(error, Broken) else None) or Reason.WORKER_LOST
            log.info("part.broken", key=copy.order.key, id=ending.stream.envelope.correlation_id, why=str(error))
            return error_response(why), why
        finally:
            self._pending.close(ending, why, size)

    def _hold(self, size: int, more: int) -> bool:
        if size + more > self._limit or not self._pending.hold(more):
            return False
        self._held += more
        return True


def _too_large() -> tuple[Response, Reason]:
    text = b"rabbitbal: bad-response: this part is larger than the route's part_limit, or than there is room for\n"
    fields = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"Content-Length", b"%d" % len(text))]
    return Response(502, fields, text), Reason.BAD_RESPONSE
