"""Lines of recordings: what is written reads back, and what is not one of ours is told in words."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.recording import MOST_LINE, Exchange, Partial, decode_exchange, encode_exchange

TOKEN = st.text("abcXYZ019-_", min_size=1, max_size=12).map(str.encode)
VALUE = st.binary(max_size=40).map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F).strip())
NAMES = TOKEN.filter(lambda name: name.lower() not in (b"content-length", b"transfer-encoding"))
FIELDS = st.lists(st.tuples(NAMES, VALUE), max_size=6)
TARGET = st.binary(min_size=1, max_size=40).map(lambda raw: b"/" + bytes(b for b in raw if b > 0x20 and b != 0x7F))
TIMES = st.none() | st.floats(0, 1e6)


def with_length(fields: list[tuple[bytes, bytes]], body: bytes) -> list[tuple[bytes, bytes]]:
    return [*fields, (b"Content-Length", b"%d" % len(body))] if body else fields


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    fields, answered, body, answer = draw(FIELDS), draw(FIELDS), draw(st.binary()), draw(st.binary())
    response = Response(draw(st.sampled_from((200, 201, 404, 500))), with_length(answered, answer), answer)
    return Exchange(
        id=draw(st.text("0123456789abcdef", min_size=1, max_size=32)),
        when=draw(st.integers(0, 1 << 44)),
        request=Request(draw(TOKEN).decode(), draw(TARGET), with_length(fields, body), body),
        response=draw(st.none() | st.just(response)),
        status=draw(st.none() | st.integers(100, 599)),
        reason=draw(st.none() | st.sampled_from(("client-gone", "queue-timeout"))),
        route=draw(st.none() | st.text(max_size=20)),
        worker=draw(st.none() | st.text(max_size=20)),
        attempt=draw(st.integers(1, 1000)),
        app_ms=draw(TIMES),
        queue_ms=draw(TIMES),
        total_ms=draw(TIMES),
    )


@given(exchanges())
def test_a_line_reads_back_as_what_was_written(exchange: Exchange) -> None:
    """Every byte of both messages, and it is one line of ASCII."""
    line = encode_exchange(exchange)
    assert line.isascii()
    assert "\n" not in line
    assert decode_exchange(line) == exchange
    assert decode_exchange(line.encode()) == exchange


GET = Request("GET", b"/a", [(b"Host", b"h")])
PLAIN = Exchange("a1", 7, GET, Response(200, [(b"Content-Length", b"2")], b"\xff\n"))


def test_a_message_reads_plainly_in_its_line() -> None:
    """A character for each byte, so no base64."""
    line = json.loads(encode_exchange(PLAIN))
    assert line["request"] == "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
    assert line["response"] == "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\n"


def test_a_body_that_is_not_there_is_not_pretended() -> None:
    """Of one that came in pieces the line has what is known, and reads back as partial."""
    digest = "ab" * 32
    streamed = replace(PLAIN, response=Response(200, [(b"Content-Length", b"99")]), response_body=Partial(99, digest))
    line = encode_exchange(streamed)
    assert json.loads(line)["response_body"] == {"body": "partial", "size": 99, "sha256": digest}
    assert decode_exchange(line) == streamed
    uploaded = replace(PLAIN, request_body=Partial())
    assert decode_exchange(encode_exchange(uploaded)) == uploaded


def test_counts_are_no_exchange() -> None:
    """The recording's own lines are given as they are."""
    counts = {"recorded": 3, "skipped": 1, "forgotten": 0, "end": "limit"}
    assert decode_exchange(json.dumps(counts)) == counts


def changed(**members: Any) -> str:
    return json.dumps(json.loads(encode_exchange(PLAIN)) | members)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (encode_exchange(PLAIN)[:-20], "cut off"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ("{}", "request must be a text"),
        (changed(request=7), "request must be a text"),
        (changed(request="GET / HTTP/1.1\r\n"), "no end of head"),
        (changed(request="GET  HTTP/1.1\r\n\r\n"), "request"),
        (changed(request="GET /\u0141 HTTP/1.1\r\n\r\n"), "beyond U+00FF"),
        (changed(request="POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"), "Content-Length differ"),
        (changed(response="HTTP/1.1 99 ?\r\n\r\n"), "status line"),
        (changed(response=[]), "response must be a text"),
        (changed(id=None), "id must be a text"),
        (changed(id="x" * 1000), "id must be a text"),
        (changed(when="now"), "when must be a whole number"),
        (changed(when=True), "when must be a whole number"),
        (changed(attempt=-1), "attempt must be"),
        (changed(app_ms="1"), "app_ms must be a number"),
        (changed(app_ms=float("nan")), "app_ms must be a number"),
        (changed(route={}), "route must be a text"),
        (changed(response_body="partial"), "response_body must be an object"),
        (changed(response_body={"body": "partial", "sha256": "x"}), "no digest"),
        (" " * (MOST_LINE + 1), "characters"),
    ],
)
def test_what_is_no_line_of_ours_is_refused_in_words(line: str, words: str) -> None:
    with pytest.raises(WireError, match=words.replace("+", r"\+")):
        decode_exchange(line)


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(("id", "when", "request", "response", "recorded", "x")), inner),
    ).map(json.dumps)
)
def test_whatever_a_line_holds_it_is_read_or_refused(line: str) -> None:
    """Never another error than the one that names what is wrong."""
    try:
        found = decode_exchange(line)
    except WireError:
        return
    assert isinstance(found, Exchange | dict)
