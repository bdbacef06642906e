"""One table of messages, run in every direction, with h11 as a second opinion; and what must be refused."""

import h11
import pytest

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Field
from rabbitbal.wire.message import (
    MAX_HEAD,
    Request,
    Response,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

HOST = (b"Host", b"example.com")


def length(number: int) -> Field:
    return (b"Content-Length", b"%d" % number)


REQUESTS = {
    "the smallest": (Request("GET", b"/", [HOST]), b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
    "a query, still encoded": (
        Request("GET", b"/a%2Fb/?q=%20&q=", [HOST]),
        b"GET /a%2Fb/?q=%20&q= HTTP/1.1\r\nHost: example.com\r\n\r\n",
    ),
    "dots and slashes are not tidied": (
        Request("GET", b"//a/../b/./", [HOST]),
        b"GET //a/../b/./ HTTP/1.1\r\nHost: example.com\r\n\r\n",
    ),
    "a body": (
        Request("POST", b"/orders", [HOST, length(7)], b'{"a":1}'),
        b'POST /orders HTTP/1.1\r\nHost: example.com\r\nContent-Length: 7\r\n\r\n{"a":1}',
    ),
    "an empty body that is declared": (
        Request("POST", b"/", [HOST, length(0)]),
        b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n",
    ),
    "a body that looks like a head": (
        Request("POST", b"/", [HOST, length(16)], b"\r\n\r\nGET / HTTP/1"),
        b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 16\r\n\r\n\r\n\r\nGET / HTTP/1",
    ),
    "every byte in a body": (
        Request("PUT", b"/", [HOST, length(256)], bytes(range(256))),
        b"PUT / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 256\r\n\r\n" + bytes(range(256)),
    ),
    "a GET with a body": (
        Request("GET", b"/", [HOST, length(1)], b"x"),
        b"GET / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1\r\n\r\nx",
    ),
    "repeated fields in order": (
        Request("GET", b"/", [(b"X-A", b"1"), HOST, (b"x-a", b"2"), (b"X-B", b""), (b"X-A", b"1")]),
        b"GET / HTTP/1.1\r\nX-A: 1\r\nHost: example.com\r\nx-a: 2\r\nX-B: \r\nX-A: 1\r\n\r\n",
    ),
    "the case of names and the place of the length": (
        Request("POST", b"/", [(b"cOnTeNt-LeNgTh", b"2"), (b"HOST", b"a")], b"hi"),
        b"POST / HTTP/1.1\r\ncOnTeNt-LeNgTh: 2\r\nHOST: a\r\n\r\nhi",
    ),
    "obs-text, tabs and colons in a value": (
        Request("GET", b"/", [HOST, (b"X-Name", b"J\xf6rg\t: a \x80\xff")]),
        b"GET / HTTP/1.1\r\nHost: example.com\r\nX-Name: J\xf6rg\t: a \x80\xff\r\n\r\n",
    ),
    "every character of a token": (
        Request("!#$%&'*+-.^_`|~09AZaz", b"/", [HOST, (b"!#$%&'*+-.^_`|~09AZaz", b"v")]),
        b"!#$%&'*+-.^_`|~09AZaz / HTTP/1.1\r\nHost: example.com\r\n!#$%&'*+-.^_`|~09AZaz: v\r\n\r\n",
    ),
    "an absolute target": (
        Request("GET", b"http://example.com/a?b", [HOST]),
        b"GET http://example.com/a?b HTTP/1.1\r\nHost: example.com\r\n\r\n",
    ),
    "the asterisk": (Request("OPTIONS", b"*", [HOST]), b"OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n"),
}

# Ours only: h11 wants exactly one Host and a target of ASCII.
REQUESTS_BEYOND_H11 = {
    "no field at all": (Request("GET", b"/"), b"GET / HTTP/1.1\r\n\r\n"),
    "a target with raw octets": (Request("GET", b"/caf\xc3\xa9", [HOST]), None),
}

RESPONSES = {
    "the smallest": (Response(200, [length(0)]), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "no field at all": (Response(200), b"HTTP/1.1 200 OK\r\n\r\n"),
    "a body": (
        Response(404, [(b"Content-Type", b"text/plain"), length(4)], b"gone"),
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\ngone",
    ),
    "a body that looks like a head": (
        Response(200, [length(23)], b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ),
    "two cookies": (
        Response(302, [(b"Set-Cookie", b"a=1; Path=/"), (b"Location", b"/"), (b"Set-Cookie", b"b=2"), length(0)]),
        b"HTTP/1.1 302 Found\r\nSet-Cookie: a=1; Path=/\r\nLocation: /\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    ),
    "no content": (Response(204, [(b"ETag", b'"x"')]), b'HTTP/1.1 204 No Content\r\nETag: "x"\r\n\r\n'),
    "not modified, with the length of what was not sent": (
        Response(304, [(b"ETag", b'"x"'), length(512)]),
        b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 512\r\n\r\n',
    ),
    "the lowest status": (Response(200, [length(1)], b"x"), b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
    "the highest status, which has no phrase": (
        Response(599, [length(0)]),
        b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n",
    ),
    "obs-text in a value": (
        Response(200, [(b"X-Name", b"\xe9"), length(0)]),
        b"HTTP/1.1 200 OK\r\nX-Name: \xe9\r\nContent-Length: 0\r\n\r\n",
    ),
}


@pytest.mark.parametrize(("request_", "payload"), (every := REQUESTS | REQUESTS_BEYOND_H11).values(), ids=every.keys())
def test_a_request_and_its_bytes_are_the_same_thing(request_: Request, payload: bytes | None) -> None:
    encoded = encode_request(request_)
    if payload is not None:
        assert encoded == payload
    assert decode_request(encoded) == request_
    assert encode_request(decode_request(encoded)) == encoded


@pytest.mark.parametrize(("response", "payload"), RESPONSES.values(), ids=RESPONSES.keys())
def test_a_response_and_its_bytes_are_the_same_thing(response: Response, payload: bytes) -> None:
    assert encode_response(response) == payload
    assert decode_response(payload) == response
    assert encode_response(decode_response(payload)) == payload


def test_a_response_to_head_keeps_the_length_of_the_body_that_it_does_not_have() -> None:
    response = Response(200, [length(1234)])
    payload = b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"
    assert encode_response(response) == payload
    assert decode_response(payload) == response
    assert read_with_h11(payload, method="HEAD") == response


# --- h11 as a second opinion


def parsed_by_h11(connection: h11.Connection, payload: bytes) -> tuple[h11.Event, bytes]:
    """The head and the body; fails when h11 finds the message incomplete or something behind it."""
    connection.receive_data(payload)
    if connection.our_role is h11.CLIENT:
        connection.receive_data(b"")
    head = connection.next_event()
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert not list(event.headers)
    assert connection.trailing_data[0] == b""
    assert isinstance(head, h11.Request | h11.Response)
    return head, body


def raw(fields: h11.Request | h11.Response) -> list[Field]:
    return [(bytes(name), bytes(value)) for name, value in fields.headers.raw_items()]


def read_with_h11(payload: bytes, method: str = "GET") -> Response:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    client.send(h11.Request(method=method, target="/", headers=[HOST]))
    client.send(h11.EndOfMessage())
    head, body = parsed_by_h11(client, payload)
    assert isinstance(head, h11.Response)
    return Response(head.status_code, raw(head), body)


@pytest.mark.parametrize("request_", [request_ for request_, _ in REQUESTS.values()], ids=REQUESTS.keys())
def test_h11_reads_the_request_that_we_write(request_: Request) -> None:
    head, body = parsed_by_h11(h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD), encode_request(request_))
    assert isinstance(head, h11.Request)
    assert Request(head.method.decode(), head.target, raw(head), body) == request_
    assert head.http_version == b"1.1"


@pytest.mark.parametrize("response", [response for response, _ in RESPONSES.values()], ids=RESPONSES.keys())
def test_h11_reads_the_response_that_we_write(response: Response) -> None:
    assert read_with_h11(encode_response(response)) == response


@pytest.mark.parametrize("request_", [request_ for request_, _ in REQUESTS.values()], ids=REQUESTS.keys())
def test_we_read_the_request_that_h11_writes(request_: Request) -> None:
    client = h11.Connection(h11.CLIENT)
    written = client.send(h11.Request(method=request_.method, target=request_.target, headers=request_.fields)) or b""
    if request_.body:
        written += client.send(h11.Data(data=request_.body)) or b""
    written += client.send(h11.EndOfMessage()) or b""
    ours, theirs = decode_request(written), request_
    # h11 writes Host before all others.
    assert (ours.method, ours.target, ours.body) == (theirs.method, theirs.target, theirs.body)
    assert sorted(ours.fields) == sorted(theirs.fields)


# --- hostile input

HOSTILE_HEADS = {
    "nothing": b"",
    "only an end of line": b"\r\n",
    "only the end of a head": b"\r\n\r\n",
    "no end of head": b"START\r\nHost: a\r\n",
    "bare LF for every end of line": b"START\nHost: a\n\n",
    "bare LF within a value": b"START\r\nX: a\nY: b\r\n\r\n",
    "bare CR within a value": b"START\r\nX: a\rY: b\r\n\r\n",
    "bare CR before the end of line": b"START\r\nX: a\r\r\n\r\n",
    "a leading empty line": b"\r\nSTART\r\nHost: a\r\n\r\n",
    "a NUL in a value": b"START\r\nX: a\x00b\r\n\r\n",
    "a NUL in a name": b"START\r\nX\x00: a\r\n\r\n",
    "a control character in a value": b"START\r\nX: \x1b[2J\r\n\r\n",
    "DEL in a value": b"START\r\nX: \x7f\r\n\r\n",
    "obs-fold with a space": b"START\r\nX: a\r\n b\r\n\r\n",
    "obs-fold with a tab": b"START\r\nX: a\r\n\tb: c\r\n\r\n",
    "whitespace behind the start line": b"START\r\n X: a\r\n\r\n",
    "a space before the colon": b"START\r\nX : a\r\n\r\n",
    "a tab before the colon": b"START\r\nContent-Length\t: 0\r\n\r\n",
    "no colon": b"START\r\nHost\r\n\r\n",
    "no name": b"START\r\n: a\r\n\r\n",
    "a name that is no token": b"START\r\nX(1): a\r\n\r\n",
    "a name outside ASCII": b"START\r\nX\xe9: a\r\n\r\n",
    "two lengths that differ": b"START\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "two lengths that differ in one field": b"START\r\nContent-Length: 1, 2\r\n\r\nx",
    "two lengths that agree": b"START\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\nx",
    "two lengths that agree in one field": b"START\r\nContent-Length: 1, 1\r\n\r\nx",
    "a length with a sign": b"START\r\nContent-Length: +5\r\n\r\nhello",
    "a negative length": b"START\r\nContent-Length: -5\r\n\r\nhello",
    "a hexadecimal length": b"START\r\nContent-Length: 0x5\r\n\r\nhello",
    "a length with an underscore": b"START\r\nContent-Length: 1_0\r\n\r\n0123456789",
    "a length with a leading zero": b"START\r\nContent-Length: 05\r\n\r\nhello",
    "a length with a fraction": b"START\r\nContent-Length: 5.0\r\n\r\nhello",
    "a length in other digits": b"START\r\nContent-Length: \xd9\xa5\r\n\r\nhello",
    "an empty length": b"START\r\nContent-Length:\r\n\r\n",
    "a length and a comma": b"START\r\nContent-Length: 5,\r\n\r\nhello",
    "a length of 19 digits": b"START\r\nContent-Length: 9999999999999999999\r\n\r\nhello",
    "a length of 100 000 digits": b"START\r\nContent-Length: " + b"9" * 100_000 + b"\r\n\r\nhello",
    "a body shorter than its length": b"START\r\nContent-Length: 6\r\n\r\nhello",
    "a body longer than its length": b"START\r\nContent-Length: 4\r\n\r\nhello",
    "a body and the length nought": b"START\r\nContent-Length: 0\r\n\r\nhello",
    "a body without a length": b"START\r\n\r\nhello",
    "a chunked body": b"START\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks behind a length": b"START\r\nContent-Length: 5\r\ntransfer-ENCODING: chunked\r\n\r\n0\r\n\r\n",
    "a transfer coding without a body": b"START\r\nTransfer-Encoding: identity\r\n\r\n",
    "a head without an end that is too large": b"START\r\nX: " + b"a" * 2 * MAX_HEAD,
    "a head that is too large": b"START\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n",
}

HOSTILE_REQUESTS = {
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version in lower case": b"GET / http/1.1\r\n\r\n",
    "a version with more digits": b"GET / HTTP/1.10\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\n\r\n",
    "an empty target": b"GET  HTTP/1.1\r\n\r\n",
    "no method": b" / HTTP/1.1\r\n\r\n",
    "a method that is no token": b"GE(T / HTTP/1.1\r\n\r\n",
    "a method outside ASCII": b"G\xc9T / HTTP/1.1\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\n\r\n",
    "a tab in the target": b"GET /a\tb HTTP/1.1\r\n\r\n",
    "a NUL in the target": b"GET /\x00 HTTP/1.1\r\n\r\n",
    "a bare CR in the target": b"GET /\r HTTP/1.1\r\n\r\n",
    "a bare LF in the target": b"GET /\nX: HTTP/1.1\r\n\r\n",
    "DEL in the target": b"GET /\x7f HTTP/1.1\r\n\r\n",
    "tabs between the parts": b"GET\t/\tHTTP/1.1\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n\r\n",
    "a space at the end": b"GET / HTTP/1.1 \r\n\r\n",
    "a bare CR at the end": b"GET / HTTP/1.1\r\r\n\r\n",
    "a response": b"HTTP/1.1 200 OK\r\n\r\n",
}

HOSTILE_RESPONSES = {
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n",
    "a version in lower case": b"http/1.1 200 OK\r\n\r\n",
    "no version": b"200 OK\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "an empty status": b"HTTP/1.1  OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status with a sign": b"HTTP/1.1 +20 OK\r\n\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status of nought": b"HTTP/1.1 000 OK\r\n\r\n",
    "a status above 599": b"HTTP/1.1 600 OK\r\n\r\n",
    "100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "101 Switching Protocols": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "103 Early Hints before the response": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "a control character in the phrase": b"HTTP/1.1 200 O\x1bK\r\n\r\n",
    "a NUL in the phrase": b"HTTP/1.1 200 O\x00K\r\n\r\n",
    "a bare LF in the phrase": b"HTTP/1.1 200 OK\nX: a\r\n\r\n",
    "a bare CR in the phrase": b"HTTP/1.1 200 OK\rX: a\r\n\r\n",
    "no content, and a body": b"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\nx",
    "not modified, and a body": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1\r\n\r\nx",
    "no body, and two lengths that differ": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "no body, and two lengths that agree": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "no body, and a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
    "no body, and a length beyond bounds": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"1" * 19 + b"\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
}

# A response without a body may declare one, in answer to HEAD.
ONLY_REQUESTS = {"a body shorter than its length, nought": b"START\r\nContent-Length: 6\r\n\r\n"}


@pytest.mark.parametrize(
    "payload",
    [
        *(head.replace(b"START", b"POST / HTTP/1.1", 1) for head in (HOSTILE_HEADS | ONLY_REQUESTS).values()),
        *HOSTILE_REQUESTS.values(),
    ],
    ids=[*HOSTILE_HEADS, *ONLY_REQUESTS, *HOSTILE_REQUESTS],
)
def test_a_hostile_request_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode_request(payload)


@pytest.mark.parametrize(
    "payload",
    [
        *(head.replace(b"START", b"HTTP/1.1 200 OK", 1) for head in HOSTILE_HEADS.values()),
        *HOSTILE_RESPONSES.values(),
    ],
    ids=[*HOSTILE_HEADS, *HOSTILE_RESPONSES],
)
def test_a_hostile_response_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode_response(payload)


def test_a_hostile_head_is_refused_for_its_own_defect() -> None:
    # The start lines that stand for START above are good ones.
    assert decode_request(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n").method == "POST"
    assert decode_response(b"HTTP/1.1 200 OK\r\nHost: a\r\n\r\n").status == 200


def test_an_error_shows_no_more_than_the_beginning_of_what_was_wrong() -> None:
    with pytest.raises(WireError) as caught:
        decode_request(b"GET / HTTP/1.1\r\n" + b"(" * 100_000 + b": a\r\n\r\n")
    assert len(str(caught.value)) < 200


# --- what a reader lets pass

LENIENT = {
    "no space around a value": (b"HTTP/1.1 200 OK\r\nX:a\r\n\r\n", Response(200, [(b"X", b"a")])),
    "much space around a value": (b"HTTP/1.1 200 OK\r\nX: \t a b\t \r\n\r\n", Response(200, [(b"X", b"a b")])),
    "a value of spaces": (b"HTTP/1.1 200 OK\r\nX:    \r\n\r\n", Response(200, [(b"X", b"")])),
    "an empty phrase": (b"HTTP/1.1 200 \r\n\r\n", Response(200)),
    "no phrase": (b"HTTP/1.1 200\r\n\r\n", Response(200)),
    "an odd phrase": (b"HTTP/1.1 200 Tr\xe8s bien: \t oui\r\n\r\n", Response(200)),
}


@pytest.mark.parametrize(("payload", "response"), LENIENT.values(), ids=LENIENT.keys())
def test_what_carries_no_meaning_is_not_looked_at(payload: bytes, response: Response) -> None:
    assert decode_response(payload) == response


# --- the size of the head


def test_a_head_of_the_largest_size_travels_and_one_byte_more_does_not() -> None:
    room = MAX_HEAD - len(b"GET / HTTP/1.1\r\nX: \r\n\r\n")
    largest = Request("GET", b"/", [(b"X", b"a" * room)])
    payload = encode_request(largest)
    assert len(payload) == MAX_HEAD
    assert decode_request(payload) == largest
    with pytest.raises(WireError):
        encode_request(Request("GET", b"/", [(b"X", b"a" * (room + 1))]))
    with pytest.raises(WireError):
        decode_request(payload.replace(b"X: ", b"X: a"))


def test_a_large_body_does_not_count_as_head() -> None:
    request = Request("POST", b"/", [length(4 * MAX_HEAD)], b"x" * 4 * MAX_HEAD)
    assert decode_request(encode_request(request)) == request


# --- what the writer refuses

INJECTIONS: dict[str, list[Field]] = {
    "a field behind CRLF": [(b"X", b"a\r\nSet-Cookie: b=1")],
    "a body behind two CRLF": [(b"X", b"a\r\n\r\n<script>")],
    "a field behind LF": [(b"X", b"a\nSet-Cookie: b=1")],
    "a field behind CR": [(b"X", b"a\rSet-Cookie: b=1")],
    "CRLF at the end": [(b"X", b"a\r\n")],
    "a NUL": [(b"X", b"a\x00")],
    "a vertical tab at the end": [(b"X", b"a\x0b")],
    "CRLF in a name": [(b"X: a\r\nY", b"b")],
    "LF at the end of a name": [(b"X\n", b"b")],
    "a colon in a name": [(b"X: a", b"b")],
    "a space in a name": [(b"X Y", b"b")],
    "an empty name": [(b"", b"b")],
    "a name outside ASCII": [(b"\xe9", b"b")],
    "a transfer coding": [(b"Transfer-Encoding", b"chunked")],
    "a transfer coding beside a length": [(b"tRANSFER-eNCODING", b"gzip, chunked"), (b"Content-Length", b"4")],
    "two lengths that differ": [(b"Content-Length", b"4"), (b"Content-Length", b"5")],
    "a length that is no number": [(b"Content-Length", b"four")],
    "a length with an injection": [(b"Content-Length", b"4\r\nX: a")],
    "a head that is too large": [(b"X", b"a" * MAX_HEAD)],
}


@pytest.mark.parametrize("body", [b"", b"body"])
@pytest.mark.parametrize("fields", INJECTIONS.values(), ids=INJECTIONS.keys())
def test_fields_that_would_not_be_read_again_are_not_written(fields: list[Field], body: bytes) -> None:
    with pytest.raises(WireError):
        encode_request(Request("POST", b"/", fields, body))
    with pytest.raises(WireError):
        encode_response(Response(200, fields, body))


@pytest.mark.parametrize(
    "method", ["", " ", "GET ", "GET / HTTP/1.1\r\nX:", "GET\n", "G\xc9T", "\ud800", "GE\0T", "a:b"]
)
def test_a_method_that_is_no_token_is_not_written(method: str) -> None:
    with pytest.raises(WireError):
        encode_request(Request(method, b"/"))


@pytest.mark.parametrize(
    "target", [b"", b" ", b"/a b", b"/\r\nX: a", b"/ HTTP/1.1\r\nX: a\r\n\r\n", b"/\n", b"/\x00", b"/\t", b"/\x7f"]
)
def test_a_target_with_whitespace_or_control_characters_is_not_written(target: bytes) -> None:
    with pytest.raises(WireError):
        encode_request(Request("GET", target))


@pytest.mark.parametrize("status", [-200, 0, 99, 100, 101, 103, 199, 600, 999, 1000])
def test_a_status_that_ends_nothing_is_not_written(status: int) -> None:
    with pytest.raises(WireError):
        encode_response(Response(status))


@pytest.mark.parametrize("status", [204, 304])
def test_a_body_is_not_written_where_http_has_none(status: int) -> None:
    with pytest.raises(WireError):
        encode_response(Response(status, [], b"x"))


# --- what the writer puts right


def test_a_missing_length_is_added() -> None:
    assert encode_request(Request("POST", b"/", [HOST], b"hi")).endswith(b"\r\nContent-Length: 2\r\n\r\nhi")
    assert encode_response(Response(200, [], b"hi")).endswith(b"\r\nContent-Length: 2\r\n\r\nhi")


def test_no_length_is_invented_where_there_is_no_body() -> None:
    assert b"Content-Length" not in encode_request(Request("GET", b"/", [HOST]))
    assert b"Content-Length" not in encode_response(Response(200))


@pytest.mark.parametrize("body", [b"", b"hello"])
def test_a_wrong_length_of_a_request_is_put_right(body: bytes) -> None:
    fields = [length(77), HOST]
    assert decode_request(encode_request(Request("POST", b"/", fields, body))).fields == [HOST, length(len(body))]
    assert fields == [length(77), HOST]


def test_a_wrong_length_of_a_body_in_a_response_is_put_right() -> None:
    assert decode_response(encode_response(Response(200, [length(77)], b"hello"))).fields == [length(5)]


@pytest.mark.parametrize(
    "repeated", [[length(5), HOST, length(5)], [(b"Content-Length", b"5, 5"), HOST], [(b"Content-Length", b"05"), HOST]]
)
def test_a_length_that_is_said_twice_or_oddly_is_said_once(repeated: list[Field]) -> None:
    once = [HOST, length(5)]
    assert decode_request(encode_request(Request("POST", b"/", repeated, b"hello"))).fields == once
    assert decode_response(encode_response(Response(200, repeated, b"hello"))).fields == once
    assert decode_response(encode_response(Response(200, repeated))).fields == once


def test_whitespace_around_a_value_is_dropped() -> None:
    request = Request("GET", b"/", [(b"X", b" \t a\tb \t")])
    assert decode_request(encode_request(request)).fields == [(b"X", b"a\tb")]
