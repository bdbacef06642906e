"""HTTP/1.1 on a connection to the upstream, as a client speaks it; h11 keeps the rules."""

import h11

from rabbitbal.wire.fields import Fields
from rabbitbal.wire.message import MAX_HEAD
from rabbitbal.worker.targets.network import Lost, Wire


class Connection:
    """One request after another. Reading raises Lost or h11.RemoteProtocolError, writing h11.LocalProtocolError."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.kept = False
        """It carried a request before."""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)

    @property
    def stale(self) -> bool:
        """Cannot be used again: the upstream has closed it, or has sent what nobody asked for."""
        return self.wire.readable

    def reuse(self) -> bool:
        """Make ready for the next request. False where there cannot be one."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        # What comes behind a response is no answer to the next request.
        if self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        self.wire.begin()
        self.kept = True
        return True

    # --- bytes to send

    def head(self, method: str, target: bytes, fields: Fields) -> bytes:
        return self._http.send(h11.Request(method=method, target=target, headers=fields)) or b""

    def piece(self, data: bytes) -> bytes:
        return self._http.send(h11.Data(data=data)) or b""

    def end(self) -> bytes:
        return self._http.send(h11.EndOfMessage()) or b""

    # --- what comes back

    async def response(self) -> tuple[int, Fields]:
        """Status and fields of the final response, or of 101."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                return event.status_code, event.headers.raw_items()

    async def body(self) -> bytes:
        """The next piece of the response's body, b"" at its end."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Data) and event.data:
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return b""

    @property
    def behind(self) -> bytes:
        """Behind 101: what came together with it, in the other protocol."""
        return self._http.trailing_data[0]

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self.wire.receive()
            if not data and self._http.their_state is h11.SEND_RESPONSE:
                if not self.wire.received:
                    raise Lost("no response")
                raise h11.RemoteProtocolError("the connection was closed before the end of the head")
            self._http.receive_data(data)
        return event  # type: ignore[return-value]
