"""HTTP Archives: what is written has the structure of HAR 1.2 and reads back; what browsers write is read, too."""

import base64
import contextlib
import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.operator import har
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import HOP_BY_HOP, Fields
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.recording import Exchange, Partial, encode_exchange

JSON = [(b"Content-Type", b"application/json"), (b"Content-Length", b"2")]
PLAIN = Exchange(
    "a1",
    1_764_088_200_123,
    Request("GET", b"/a?b=c&d=", [(b"Host", b"shop.example"), (b"X-Forwarded-Proto", b"https")]),
    Response(200, JSON, b"{}"),
    status=200,
    route="shop",
    pool="north",
    worker="w-1",
    app_ms=20.5,
    queue_ms=3.0,
    total_ms=25.0,
)


def archive(*exchanges: Exchange) -> str:
    return har.HEAD + ",".join(json.dumps(har.entry(exchange)) for exchange in exchanges) + har.TAIL


def round_trip(exchange: Exchange) -> Exchange:
    (found,) = har.read(archive(exchange))
    return found


TOKEN = st.text("abcXYZ019-_", min_size=1, max_size=12).map(str.encode)
VALUE = st.binary(max_size=40).map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F).strip())
TAKEN = {b"content-length", b"transfer-encoding", b"content-encoding", b"host", *HOP_BY_HOP}
FIELDS = st.lists(st.tuples(TOKEN.filter(lambda name: name.lower() not in TAKEN), VALUE), max_size=5)
TARGET = st.binary(max_size=40).map(lambda raw: b"/" + bytes(b for b in raw if b > 0x20 and b != 0x7F))
BODY = st.binary(max_size=200) | st.text(max_size=100).map(str.encode)


def with_length(fields: Fields, body: bytes) -> Fields:
    return [*fields, (b"Content-Length", b"%d" % len(body))] if body else fields


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    body, answer = draw(BODY), draw(BODY)
    response = Response(draw(st.sampled_from((200, 404, 503))), with_length(draw(FIELDS), answer), answer)
    return replace(
        PLAIN,
        when=draw(st.integers(0, 4_000_000_000_000)),
        request=Request(draw(TOKEN).decode(), draw(TARGET), with_length([(b"Host", b"h"), *draw(FIELDS)], body), body),
        response=response,
        status=response.status,
        app_ms=draw(st.floats(0, 1e6)),
    )


@given(exchanges())
def test_an_archive_reads_back_as_what_was_written(exchange: Exchange) -> None:
    """Every byte of both messages, and their order."""
    assert round_trip(exchange) == exchange


def test_an_entry_has_what_the_specification_asks_for() -> None:
    """http://www.softwareishard.com/blog/har-12-spec/: members that are not optional, and their types."""
    posted = replace(PLAIN, request=Request("POST", b"/a", [(b"Content-Length", b"3")], b"a=b"))
    entries = json.loads(archive(PLAIN, posted))["log"]["entries"]
    check_structure(json.loads(archive(PLAIN, posted)))
    request, response = entries[0]["request"], entries[0]["response"]
    assert request["url"] == "https://shop.example/a?b=c&d="
    assert request["queryString"] == [{"name": "b", "value": "c"}, {"name": "d", "value": ""}]
    assert response["content"] == {"size": 2, "mimeType": "application/json", "text": "{}"}
    assert entries[0]["timings"] == {"blocked": 3.0, "send": 0, "wait": 20.5, "receive": 0}
    assert entries[0]["startedDateTime"] == "2025-11-25T16:30:00.123+00:00"
    assert entries[1]["request"]["postData"] == {"mimeType": "application/octet-stream", "text": "a=b"}


def check_structure(found: Any) -> None:
    """Raises AssertionError or KeyError for what HAR 1.2 does not allow."""
    log = found["log"]
    assert log["version"] == "1.2"
    assert {"name", "version"} <= log["creator"].keys()
    for entry in log["entries"]:
        assert isinstance(entry["time"], int | float)
        assert isinstance(entry["startedDateTime"], str)
        assert isinstance(entry["cache"], dict)
        assert all(isinstance(entry["timings"][name], int | float) for name in ("send", "wait", "receive"))
        for message, texts in (
            (entry["request"], ("method", "url")),
            (entry["response"], ("statusText", "redirectURL")),
        ):
            assert all(isinstance(message[name], str) for name in (*texts, "httpVersion"))
            assert all(isinstance(message[name], int) for name in ("headersSize", "bodySize"))
            for pairs in (message["headers"], message["cookies"], message.get("queryString", [])):
                assert all(isinstance(pair["name"], str) and isinstance(pair["value"], str) for pair in pairs)
        assert isinstance(entry["response"]["status"], int)
        assert isinstance(entry["response"]["content"]["size"], int)
        assert isinstance(entry["response"]["content"]["mimeType"], str)
        # "Custom fields and elements must start with an underscore".
        known = {"startedDateTime", "time", "request", "response", "cache", "timings"}
        assert all(name.startswith("_") for name in entry.keys() - known)


def test_a_body_is_text_where_it_is_utf_8_and_else_base64() -> None:
    """As HAR has it, and it reads back."""
    binary = replace(PLAIN, response=Response(200, [(b"Content-Length", b"2")], b"\xff\xfe"))
    content = har.entry(binary)["response"]["content"]
    assert (content["text"], content["encoding"]) == ("//4=", "base64")
    assert round_trip(binary) == binary
    upload = replace(PLAIN, request=Request("PUT", b"/", [(b"Content-Length", b"2")], b"\xff\xfe"))
    assert round_trip(replace(upload)).request.body == b"\xff\xfe"


def test_a_compressed_body_is_told_without_its_coding() -> None:
    """ "HTTP decoded": whoever opens the archive can read it. It is marked as that when it is read."""
    text = b"hello " * 100
    packed = gzip.compress(text)
    fields = [(b"Content-Encoding", b"gzip"), (b"Content-Length", b"%d" % len(packed))]
    content = har.entry(replace(PLAIN, response=Response(200, fields, packed)))["response"]["content"]
    assert content["text"] == text.decode()
    assert content["compression"] == len(text) - len(packed)
    found = round_trip(replace(PLAIN, response=Response(200, fields, packed)))
    assert found.decoded
    assert found.response is not None
    assert found.response.body == text
    assert har.entry(found)["response"]["content"]["text"] == text.decode()


def test_a_coding_that_is_not_known_stays() -> None:
    """Its bytes are there in base64, and are not taken for plain ones when they are read."""
    exchange = replace(
        PLAIN, response=Response(200, [(b"Content-Encoding", b"br"), (b"Content-Length", b"3")], b"\x80br")
    )
    assert round_trip(exchange) == exchange


def test_what_has_no_answer_or_no_body_stays_so() -> None:
    """An ending without an answer, bodies that are partial, and the length that HEAD declares."""
    unanswered = replace(PLAIN, response=None, status=504, reason="queue-timeout")
    assert round_trip(unanswered) == unanswered
    gone = replace(PLAIN, response=None, status=499, reason="client-gone")
    assert round_trip(gone) == gone
    partial = replace(PLAIN, response=Response(200, []), response_body=Partial(99_999, "ab" * 32))
    assert har.entry(partial)["response"]["content"]["size"] == 99_999
    assert round_trip(partial) == partial
    upload = replace(PLAIN, request=Request("PUT", b"/", [(b"Host", b"h")]), request_body=Partial())
    assert round_trip(upload) == upload
    head = replace(PLAIN, request=replace(PLAIN.request, method="HEAD"), response=Response(200, JSON))
    assert round_trip(head) == head


def test_an_archive_without_entries_is_one() -> None:
    assert har.read(archive()) == []
    check_structure(json.loads(archive()))


def browsers(**more: Any) -> str:
    """An entry as a browser writes it, with pseudo-header fields of HTTP/2 and a body that was decompressed."""
    entry: dict[str, Any] = {
        "startedDateTime": "2025-11-25T16:30:00.123Z",
        "time": 50.7,
        "request": {
            "method": "GET",
            "url": "https://shop.example/a?b=c#fragment",
            "httpVersion": "h2",
            "headers": [
                {"name": ":path", "value": "/a?b=c"},
                {"name": "Accept", "value": "*/*"},
                {"name": "Connection", "value": "keep-alive"},
            ],
        },
        "response": {
            "status": 200,
            "headers": [
                {"name": "content-encoding", "value": "br"},
                {"name": "content-length", "value": "7"},
                {"name": "set-cookie", "value": "a=1\nb=2"},
            ],
            "content": {"size": 12, "mimeType": "text/plain", "text": "hello, world"},
        },
        "timings": {"blocked": -1, "wait": 40},
    }
    for path, value in more.items():
        *steps, last = path.split("__")
        at = entry
        for step in steps:
            at = at[step]
        at[last] = value
    return json.dumps({"log": {"version": "1.2", "entries": [entry]}})


def test_a_browsers_archive_is_read() -> None:
    """With a Host, without what is of another version of HTTP, and its body taken for a decoded one."""
    (exchange,) = har.read(browsers())
    assert exchange.request == Request("GET", b"/a?b=c", [(b"Host", b"shop.example"), (b"Accept", b"*/*")])
    assert exchange.response is not None
    assert exchange.response.fields[1:] == [
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"Content-Length", b"12"),
    ]
    assert (exchange.decoded, exchange.app_ms, exchange.queue_ms, exchange.total_ms) == (True, 40, None, 50.7)
    assert exchange.when == 1_764_088_200_123


def test_what_a_browser_has_left_out_is_partial() -> None:
    """A body whose size alone is there, and an upload of which nothing is. A request that failed has no answer."""
    (exchange,) = har.read(browsers(response__content={"size": 12, "mimeType": "x/y"}, response__headers=[]))
    assert exchange.response_body == Partial(12)
    sent = [{"name": "content-length", "value": "5"}]
    (exchange,) = har.read(browsers(request__method="POST", request__headers=sent))
    assert exchange.request_body == Partial(5)
    (exchange,) = har.read(browsers(response__status=0))
    assert exchange.response is None


def test_a_form_may_be_told_by_its_parameters() -> None:
    pairs = [{"name": "a", "value": "b c"}, {"name": "d", "value": "%26"}]
    (exchange,) = har.read(browsers(request__method="POST", request__postData={"mimeType": "x", "params": pairs}))
    assert exchange.request.body == b"a=b+c&d=%26"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (browsers()[:-10], "line 1: not JSON"),
        ("[" * 200_000, "nested too deep|not JSON"),
        ("[]", "there is no log.entries"),
        ('{"log": {"entries": 7}}', "there is no log.entries"),
        ('{"log": {"entries": [[]]}}', "entry 1: it must be an object"),
        (browsers(request=None), "entry 1: request must be an object"),
        (browsers(request__url="http://[::1"), "entry 1: request.url is no URL"),
        (browsers(request__url=7), "entry 1: .*url must be a text"),
        (browsers(request__method="G T"), "entry 1: method"),
        (browsers(request__headers={}), "entry 1: request.headers must be a list"),
        (browsers(request__headers=[{"name": "a b", "value": ""}]), "entry 1: field name"),
        (browsers(request__headers=[{"name": "content-length", "value": "x"}]), "entry 1: Content-Length"),
        (browsers(response__status="200"), "entry 1: response.status must be a number"),
        (browsers(response__content={"text": "%", "encoding": "base64"}), "entry 1: a body is said to be base64"),
        (browsers(startedDateTime="yesterday"), "entry 1: startedDateTime"),
        (browsers(time="1"), "entry 1: time must be a number"),
        (browsers(_rabbitbal={"response_body": {"body": "partial", "size": -4}}), "entry 1: size"),
    ],
)
def test_what_is_no_archive_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(WireError, match=words):
        har.read(text)


MEMBERS = st.sampled_from(
    (
        "log",
        "entries",
        "request",
        "response",
        "headers",
        "url",
        "method",
        "content",
        "text",
        "name",
        "value",
        "status",
        "timings",
        "startedDateTime",
        "_rabbitbal",
    )
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=5),
)


@given(ANY, st.sampled_from(("request", "response", "startedDateTime", "timings", "time", "_rabbitbal")))
def test_whatever_an_entry_holds_it_is_read_or_refused(value: object, member: str) -> None:
    """Never another error than the one that names what is wrong."""
    text = browsers(**{member: value})
    with contextlib.suppress(WireError):
        assert len(har.read(text)) == 1


def test_base64_is_the_archives_and_not_ours() -> None:
    """The same body in our own lines is plain characters."""
    exchange = replace(PLAIN, response=Response(200, [(b"Content-Length", b"2")], b"\xff\xfe"))
    assert base64.b64encode(b"\xff\xfe").decode() not in encode_exchange(exchange)
