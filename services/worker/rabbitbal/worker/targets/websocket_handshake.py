"""The opening handshake of a WebSocket (RFC 6455 §4.2), without its transport."""

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.http11 import Request as HandshakeRequest
from websockets.http11 import Response as HandshakeResponse
from websockets.protocol import State
from websockets.server import ServerProtocol

from rabbitbal.wire.fields import Fields, first
from rabbitbal.wire.message import Request, Response

_VERSION = b"13"
# What the application must leave to the handshake. "Must not include a header named sec-websocket-protocol; use the
# subprotocol key instead."
RESERVED = frozenset({b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"})


class Handshake:
    """What a request for a WebSocket is answered. ``protocol`` takes the connection's frames once it is accepted."""

    def __init__(self, request: Request, limit: int) -> None:
        # The state is that of behind the handshake: the protocol is not given the request's bytes.
        self.protocol = ServerProtocol(
            state=State.OPEN, extensions=enable_server_permessage_deflate(None), max_size=limit
        )
        headers = Headers()
        # These two ended at the edge, which says with `upgrade` that they were right.
        headers["Connection"], headers["Upgrade"] = "Upgrade", "websocket"
        for name, value in request.fields:
            if name.lower() not in (b"connection", b"upgrade"):
                headers[name.decode("latin-1")] = value.decode("latin-1")
        self._version = first(request.fields, b"sec-websocket-version")
        self._response = self.protocol.accept(
            HandshakeRequest(request.target.decode("latin-1"), headers, request.method)
        )

    @property
    def refusal(self) -> Response | None:
        """The response to a client that does not know how."""
        if self._response.status_code == 101:
            return None
        refusal = _plain(self._response)
        if self._version != _VERSION:
            # RFC 6455 §4.2.2: "an appropriate HTTP error code (such as 426 Upgrade Required) and a
            # |Sec-WebSocket-Version| header field indicating the version(s) the server is capable of understanding".
            refusal.fields.append((b"Sec-WebSocket-Version", _VERSION))
        return refusal

    def accepted(self, subprotocol: str | None, fields: Fields) -> Fields:
        """The fields of the response 101."""
        agreed = _plain(self._response).fields
        if subprotocol is not None:
            agreed.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
        return agreed + fields

    def denied(self) -> Response:
        """ "returning HTTP status code 403 if the connection is denied" """
        return _plain(self.protocol.reject(403, ""))


def _plain(response: HandshakeResponse) -> Response:
    # The edge dates every response; Connection and Upgrade are between it and the client.
    fields = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers.raw_items()
        if name.lower() not in ("date", "connection", "upgrade")
    ]
    return Response(response.status_code, fields, bytes(response.body))
