"""The connection scopes of requests (ASGI specification, "HTTP & WebSocket ASGI Message Format", version 2.5)."""

from typing import Any
from urllib.parse import unquote_to_bytes

from rabbitbal.wire.fields import values
from rabbitbal.wire.message import Request
from rabbitbal.worker.targets.addressing import client, path_and_query, scheme, server
from rabbitbal.worker.targets.lifespan import Scope

_SCHEMES = {"http": "ws", "https": "wss"}


def http_scope(request: Request, state: dict[str, Any]) -> Scope:
    """Of an HTTP request."""
    # "The HTTP method name, uppercased."
    return {"type": "http", "method": request.method.upper(), **_common(request, state), "scheme": scheme(request)}


def websocket_scope(request: Request, state: dict[str, Any]) -> Scope:
    """Of a WebSocket handshake."""
    offered = b",".join(values(request.fields, b"sec-websocket-protocol")).split(b",")
    return {
        "type": "websocket",
        **_common(request, state),
        "scheme": _SCHEMES[scheme(request)],
        # "Subprotocols the client advertised."
        "subprotocols": [name.strip().decode("latin-1") for name in offered if name.strip()],
        # ASGI specification, "WebSocket Denial Response".
        "extensions": {"websocket.http.response": {}},
    }


def _common(request: Request, state: dict[str, Any]) -> Scope:
    path, query = path_and_query(request.target)
    address = client(request)
    return {
        # 2.4: "Calling send() on a closed connection should raise an error". 2.5: the disconnect event has a reason.
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        # "HTTP request target excluding any query string, with percent-encoded sequences and UTF-8 byte sequences
        # decoded into characters." What is no UTF-8 becomes U+FFFD: lone surrogates could not be encoded again by the
        # application, and who needs the bytes has raw_path.
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        # "The original HTTP path component, excluding any query string, unmodified from the bytes that were received".
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        # "Header names must be lowercased."
        "headers": [(name.lower(), value) for name, value in request.fields],
        # The port of the client is known to the edge only.
        "client": (address, 0) if address else None,
        "server": server(request),
        # "The server should make a shallow copy of the namespace": no request sees what another put there.
        "state": state.copy(),
    }
