"""A WSGI application without a framework."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.5)
    body = environ["wsgi.input"].read()
    names = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "REMOTE_ADDR", "HTTP_HOST", "HTTP_X_TWICE")
    seen = {name: environ.get(name) for name in names} | {"body": body.decode("latin-1")}
    start_response("201 Made up", [("Content-Type", "application/json"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    yield json.dumps(seen).encode()
