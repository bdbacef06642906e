"""The WSGI environ of a request (PEP 3333, RFC 3875)."""

import sys
from io import BufferedIOBase
from typing import Any
from urllib.parse import unquote_to_bytes

from rabbitbal.wire.fields import content_length, first
from rabbitbal.wire.message import Request
from rabbitbal.worker.targets.addressing import client, path_and_query, scheme, server


def wsgi_environ(request: Request, body: BufferedIOBase, *, multithread: bool) -> dict[str, Any]:
    """Every string is native: bytes decoded as latin-1 (PEP 3333, "Unicode Issues")."""
    path, query = path_and_query(request.target)
    host, port = server(request) or ("localhost", 80)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        # "SERVER_NAME and SERVER_PORT can never be empty strings, and so are always required."
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "rabbitbal",
        "REMOTE_ADDR": client(request) or "",
        # Not in the PEP; what other servers call the target as it was sent, for who needs it undecoded.
        "RAW_URI": request.target.decode("latin-1"),
        "REQUEST_URI": request.target.decode("latin-1"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme(request),
        "wsgi.input": body,
        # The input ends by itself, whatever CONTENT_LENGTH says.
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if (content_type := first(request.fields, b"content-type")) is not None:
        environ["CONTENT_TYPE"] = content_type.decode("latin-1")
    # Without it, the body (if there is one) is as long as it turns out to be.
    if (length := content_length(request.fields)) is not None:
        environ["CONTENT_LENGTH"] = str(length)
    _add_fields(environ, request)
    return environ


def _add_fields(environ: dict[str, Any], request: Request) -> None:
    for raw_name, raw_value in request.fields:
        # "X_Forwarded_For" would become the same variable as "X-Forwarded-For", which the edge vouches for.
        if b"_" in raw_name:
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        # CGI programs and many HTTP clients take HTTP_PROXY for their own proxy setting (httpoxy, CVE-2016-5385).
        if name in ("CONTENT_TYPE", "CONTENT_LENGTH", "PROXY"):
            continue
        key, value = f"HTTP_{name}", raw_value.decode("latin-1")
        if key in environ:
            # RFC 9110 §5.3: several fields are one, "appending each subsequent field line value to the initial field
            # line value in order, separated by a comma". RFC 6265 §5.4: a cookie string is separated by "; ".
            value = environ[key] + ("; " if name == "COOKIE" else ",") + value
        environ[key] = value
