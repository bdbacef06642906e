"""HTTP Archives, version 1.2: http://www.softwareishard.com/blog/har-12-spec/. Pure.

Browsers write them, too. What HAR has no place for is in `_rabbitbal`: "custom fields … must start with an underscore".
"""

import base64
import binascii
import json
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from rabbitbal.operator.codings import NotDecoded, decoded
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import HOP_BY_HOP, Fields, content_length, first, values, without
from rabbitbal.wire.message import Request, Response, encode_request
from rabbitbal.wire.recording import Exchange, Partial, Reader

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
VERSION = "HTTP/1.1"
# Of a target, besides what may stand in one: a URL is ASCII (RFC 3986 §2).
_SAFE = "!#$%&'()*+,/:;=?@[]~\"<>\\^`{|}"
_UNKNOWN = -1
_OWN = ("id", "route", "pool", "worker", "attempt", "leg", "group", "reason")

HEAD = '{"log": {"version": "1.2", "creator": {"name": "rabbitbal", "version": "1"}, "entries": ['
TAIL = "\n]}}\n"


def entry(exchange: Exchange) -> dict[str, Any]:
    """One of `log.entries`."""
    app, queue, total = (each or 0.0 for each in (exchange.app_ms, exchange.queue_ms, exchange.total_ms))
    own: dict[str, Any] = {name: getattr(exchange, name) for name in _OWN}
    for name in ("request_body", "response_body"):
        part: Partial | None = getattr(exchange, name)
        if part is not None:
            own[name] = {"body": "partial", "size": part.size, "sha256": part.sha256}
    own["target"] = exchange.request.target.decode("latin-1")
    if exchange.response is None:
        own["answered"] = False
    return {
        "startedDateTime": datetime.fromtimestamp(exchange.when / 1000, UTC).isoformat(timespec="milliseconds"),
        "time": total or app + queue,
        "request": _request(exchange),
        "response": _response(exchange, own),
        "cache": {},
        # "blocked: time spent in a queue waiting …"; "wait: waiting for a response from the server".
        "timings": {
            "blocked": queue if exchange.queue_ms is not None else _UNKNOWN,
            "send": 0,
            "wait": app,
            "receive": 0,
        },
        "_rabbitbal": own,
    }


def _request(exchange: Exchange) -> dict[str, Any]:
    request = exchange.request
    target = quote(request.target, safe=_SAFE)
    host = (first(request.fields, b"host") or b"localhost").decode("latin-1")
    scheme = (first(request.fields, b"x-forwarded-proto") or b"http").decode("latin-1")
    shown: dict[str, Any] = {
        "method": request.method,
        "url": f"{scheme}://{host}{target if target.startswith('/') else '/' + target}",
        "httpVersion": VERSION,
        "cookies": _cookies(request.fields, b"cookie"),
        "headers": _headers(request.fields),
        "queryString": [
            {"name": name, "value": value}
            for name, value in parse_qsl(urlsplit(target).query, keep_blank_values=True, errors="replace")
        ]
        if target.startswith("/")
        else [],
        "headersSize": _UNKNOWN,
        "bodySize": _size(request.body, exchange.request_body),
    }
    if request.body:
        shown["postData"] = {"mimeType": _media_type(request.fields), **_text(request.body, "_encoding")}
    return shown


def _response(exchange: Exchange, own: dict[str, Any]) -> dict[str, Any]:
    response = exchange.response or Response(exchange.status or 0)
    body = response.body
    content: dict[str, Any] = {"size": _size(body, exchange.response_body), "mimeType": _media_type(response.fields)}
    if body and not exchange.decoded:
        # "text: … is HTTP decoded (decompressed & unchunked)".
        try:
            body = decoded(response.fields, body)
        except NotDecoded:
            own["encoded"] = True
        content["size"] = len(body)
        if len(body) > len(response.body):
            content["compression"] = len(body) - len(response.body)
    if body:
        content |= _text(body, "encoding")
    return {
        "status": response.status,
        "statusText": _PHRASES.get(response.status, ""),
        "httpVersion": VERSION,
        "cookies": _cookies(response.fields, b"set-cookie"),
        "headers": _headers(response.fields),
        "content": content,
        "redirectURL": (first(response.fields, b"location") or b"").decode("latin-1"),
        "headersSize": _UNKNOWN,
        "bodySize": _size(response.body, exchange.response_body),
    }


def _size(body: bytes, part: Partial | None) -> int:
    if part is None:
        return len(body)
    return _UNKNOWN if part.size is None else part.size


def _headers(fields: Fields) -> list[dict[str, str]]:
    return [{"name": name.decode("latin-1"), "value": value.decode("latin-1")} for name, value in fields]


def _cookies(fields: Fields, name: bytes) -> list[dict[str, str]]:
    """The names and values; what else there is, is in the headers."""
    pairs: list[bytes] = []
    for key, value in fields:
        if key.lower() == name:
            pairs += value.split(b";") if name == b"cookie" else value.split(b";")[:1]
    split = (pair.strip().decode("latin-1").partition("=") for pair in pairs)
    return [{"name": name, "value": value} for name, _, value in split if name]


def _media_type(fields: Fields) -> str:
    return (first(fields, b"content-type") or b"application/octet-stream").decode("latin-1")


def _text(body: bytes, name: str) -> dict[str, str]:
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"text": base64.b64encode(body).decode(), name: "base64"}


# --- the other way


def read(text: str | bytes) -> list[Exchange]:
    """The exchanges of an archive, in its order. Raises WireError that names the entry."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise WireError("nested too deep") from None
    except ValueError as error:
        line = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        raise WireError(f"{line}not JSON; is the file cut off?") from None
    log = found.get("log") if isinstance(found, dict) else None
    entries = log.get("entries") if isinstance(log, dict) else None
    if not isinstance(entries, list):
        raise WireError("no HTTP Archive: there is no log.entries")
    exchanges = []
    for number, each in enumerate(entries, 1):
        try:
            exchanges.append(_exchange(each, number))
        except WireError as error:
            raise WireError(f"entry {number}: {error}") from None
    return exchanges


def _exchange(found: object, number: int) -> Exchange:
    outer = Reader(_object(found, "it"))
    request, response = _object(outer.get("request"), "request"), _object(outer.get("response"), "response")
    own = Reader(_object(outer.get("_rabbitbal") or {}, "_rabbitbal"))
    request_part, response_part = _part(own, "request_body"), _part(own, "response_body")
    status = response.get("status")
    if not isinstance(status, int) or isinstance(status, bool):
        raise WireError("response.status must be a number")
    answer, coded = None, False
    # A browser writes 0 for a request that failed; what has no final status can be compared with nothing.
    if (200 <= status <= 599 or (status == 101 and response_part)) and own.get("answered") is not False:
        fields = _fields(response.get("headers"), "response.headers")
        body, size = _content(response, status)
        coded = first(fields, b"content-encoding") is not None
        if size and response_part is None:
            # A size without its coding is no size that could be compared.
            response_part = Partial(None if coded else size)
        coded = coded and bool(body) and own.get("encoded") is not True
        if response_part is None:
            fields = _true_length(fields, body)
        answer = Response(status, fields, b"" if response_part else body)
    asked = _asked(Reader(request), own)
    if not asked.body and request_part is None and (declared := content_length(asked.fields)):
        # The browser has not kept what was sent.
        request_part = Partial(declared)
    encode_request(asked, more=request_part is not None)  # it says what is wrong with it
    timings = Reader(_object(outer.get("timings") or {}, "timings"))
    return Exchange(
        id=own.optional("id") or f"entry-{number}",
        when=_when(outer.text("startedDateTime")),
        request=asked,
        response=answer,
        status=status or None,
        total_ms=_time(outer, "time"),
        app_ms=_time(timings, "wait"),
        queue_ms=_time(timings, "blocked"),
        attempt=own.whole("attempt") if own.get("attempt") is not None else 1,
        request_body=request_part,
        response_body=response_part,
        decoded=coded,
        reason=own.optional("reason"),
        route=own.optional("route"),
        pool=own.optional("pool"),
        worker=own.optional("worker"),
        leg=own.optional("leg"),
        group=own.optional("group"),
    )


def _object(found: object, name: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise WireError(f"{name} must be an object")
    return found


def _part(own: Reader, name: str) -> Partial | None:
    found = own.get(name)
    if found is None:
        return None
    part = Reader(_object(found, name))
    return Partial(None if part.get("size") is None else part.whole("size"), part.optional("sha256"))


def _time(reader: Reader, name: str) -> float | None:
    """-1 stands for what does not apply."""
    value = reader.get(name)
    return None if isinstance(value, int | float) and value < 0 else reader.time(name)


def _when(text: str) -> int:
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp() * 1000 + 0.5))
    except (ValueError, OverflowError, OSError):
        raise WireError("startedDateTime must be a time by ISO 8601") from None


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _fields(found: object, name: str) -> Fields:
    """Less what a browser has put there for another version of HTTP (`:path`), and what concerns one hop only."""
    if not isinstance(found, list):
        raise WireError(f"{name} must be a list")
    fields: Fields = []
    for each in found:
        read = Reader(_object(each, f"one of {name}"))
        key = _bytes(read.text("name", most=1000))
        if not key.startswith(b":") and key.lower() not in HOP_BY_HOP:
            value = _bytes(read.text("value", most=1 << 20))
            # A browser joins repeated fields with line breaks.
            fields += [(key, line.strip(b" \t")) for line in value.split(b"\n")]
    return fields


def _asked(read: Reader, own: Reader) -> Request:
    try:
        url = urlsplit(read.text("url", most=1 << 20))
    except ValueError as error:
        raise WireError(f"request.url is no URL: {error}") from None
    fields = _fields(read.get("headers"), "request.headers")
    if first(fields, b"host") is None:
        fields.insert(0, (b"Host", _bytes(url.netloc.rpartition("@")[2])))
    if own.get("target") is not None:
        target = _bytes(own.text("target", most=1 << 20))
    else:
        target = quote((url.path or "/") + (f"?{url.query}" if url.query else ""), safe=_SAFE).encode()
    body = _posted(read.get("postData"))
    return Request(read.text("method"), target, _true_length(fields, body), body)


def _posted(found: object) -> bytes:
    if found is None:
        return b""
    read = Reader(_object(found, "postData"))
    if read.get("text"):
        return _raw(read.text("text", most=1 << 30), read.get("_encoding") or read.get("encoding"))
    params = read.get("params")
    if not isinstance(params, list) or not params:
        return b""
    pairs = [Reader(_object(each, "one of postData.params")) for each in params]
    return urlencode([(unquote(p.text("name", 1 << 20)), unquote(p.optional("value") or "")) for p in pairs]).encode()


def _content(response: dict[str, Any], status: int) -> tuple[bytes, int]:
    """The body, and its size where it is not in the archive: a browser may have left it out."""
    read = Reader(_object(response.get("content") or {}, "response.content"))
    if read.get("text"):
        return _raw(read.text("text", most=1 << 30), read.get("encoding")), 0
    size = read.get("size")
    whole = isinstance(size, int) and not isinstance(size, bool) and size > 0 and status not in (204, 304)
    return b"", size if whole else 0


def _raw(text: str, encoding: object) -> bytes:
    if encoding != "base64":
        return text.encode("utf-8", "replace")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise WireError("a body is said to be base64, and is not") from None


def _true_length(fields: Fields, body: bytes) -> Fields:
    """What declares the length of another body, as HEAD and 304 do, stays."""
    length = b"%d" % len(body)
    if not body or list(values(fields, b"content-length")) == [length]:
        return fields
    return [*without(fields, b"content-length"), (b"Content-Length", length)]
