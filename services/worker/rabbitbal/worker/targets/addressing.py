"""Who asked, and for what, as a request itself tells it: for the ASGI scope and the WSGI environ.

The edge sets the X-Forwarded fields and drops those of clients, so they are believed here.
"""

import re

from rabbitbal.wire.fields import first
from rabbitbal.wire.message import Request

_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://[^/?]*")
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/?#@]+))(?::([0-9]{0,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def path_and_query(target: bytes) -> tuple[bytes, bytes]:
    """The two parts of a request target, still percent-encoded; the query is without its question mark.

    RFC 9112 §3.2.2: "a server MUST accept the absolute-form in requests"; Host already agrees with it, as "a proxy
    MUST ignore the received Host header field (if any) and instead replace it with the host information of the
    request-target".
    """
    if not target.startswith(b"/") and (authority := _ABSOLUTE.match(target)):
        target = target[authority.end() :]
        # RFC 3986 §6.2.3: "a URI that uses the generic syntax for authority with an empty path should be normalized to
        # a path of "/"."
        if not target.startswith(b"/"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    return path, query


def scheme(request: Request) -> str:
    """What the client spoke to the first proxy: "http" or "https"."""
    told = _first_element(request, b"x-forwarded-proto").lower()
    return told if told in _DEFAULT_PORTS else "http"


def client(request: Request) -> str | None:
    """Address of the client."""
    return _first_element(request, b"x-forwarded-for") or None


def server(request: Request) -> tuple[str, int] | None:
    """Host and port that the client asked for."""
    match = _HOST.fullmatch(first(request.fields, b"host") or b"")
    if match is None:
        return None
    host, port = match[1] or match[2], int(match[3] or 0)
    return host.decode("latin-1"), port if 0 < port < 65536 else _DEFAULT_PORTS[scheme(request)]


def _first_element(request: Request, name: bytes) -> str:
    return (first(request.fields, name) or b"").partition(b",")[0].strip().decode("latin-1")
