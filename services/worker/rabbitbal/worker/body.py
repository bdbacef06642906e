"""The body of a request as a target reads it: what came with the head, then what comes behind it."""

from rabbitbal.runtime.streams import Broken, Inlet
from rabbitbal.wire.flow import CHUNK


class RequestBody:
    """A `Body`. Where the rest will never come, `read` raises ConnectionError: the client, as far as one can see, left.

    The run is cancelled then as well; the error is for threads, which nobody can cancel.
    """

    def __init__(self, first: bytes, inlet: Inlet | None) -> None:
        self._first = first
        self._inlet = inlet

    @property
    def ended(self) -> bool:
        return not self._first and (self._inlet is None or self._inlet.exhausted)

    async def read(self) -> bytes:
        if self._first:
            piece, self._first = self._first[:CHUNK], self._first[CHUNK:]
            return piece
        if self._inlet is None:
            return b""
        try:
            return await self._inlet.read()
        except Broken as error:
            raise ConnectionResetError(str(error)) from error
