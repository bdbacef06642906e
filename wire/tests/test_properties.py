"""What holds for every message, tried on many. Derandomised: the same ones in every run."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rabbitbal.wire.envelope import Envelope, parse_envelope
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import HOP_BY_HOP, Field, Fields, content_length, end_to_end
from rabbitbal.wire.message import (
    Request,
    Response,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

many = settings(
    max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

FRAMING = {b"content-length", b"transfer-encoding"}
TCHARS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
tokens = st.text(TCHARS, min_size=1, max_size=20)
values = st.text([chr(code) for code in [9, *range(0x20, 0x7F), *range(0x80, 0x100)]], max_size=30).map(
    lambda text: text.strip(" \t").encode("latin-1")
)
targets = st.text([chr(code) for code in [*range(0x21, 0x7F), *range(0x80, 0x100)]], min_size=1, max_size=40).map(
    lambda text: text.encode("latin-1")
)
names = st.one_of(
    tokens.map(str.encode), st.sampled_from([b"Host", b"host", b"Set-Cookie", b"set-cookie", b"Connection", b"Te"])
).filter(lambda name: name.lower() not in FRAMING)
fields = st.lists(st.tuples(names, values), max_size=8)
bodies = st.one_of(st.just(b""), st.binary(max_size=60), st.just(b"\r\n\r\n"))


@st.composite
def framed(draw: st.DrawFn, body: bytes) -> Fields:
    """Fields that declare the body, at any place and in any case."""
    drawn: list[Field] = draw(fields)
    if body or draw(st.booleans()):
        name = draw(st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"]))
        drawn.insert(draw(st.integers(0, len(drawn))), (name, b"%d" % len(body)))
    return drawn


@st.composite
def requests(draw: st.DrawFn) -> Request:
    body = draw(bodies)
    return Request(draw(tokens), draw(targets), draw(framed(body)), body)


@st.composite
def responses(draw: st.DrawFn) -> Response:
    status = draw(st.integers(200, 599))
    body = draw(bodies) if status not in (204, 304) else b""
    return Response(status, draw(framed(body)), body)


# Pieces that a real parser trips over, in any order.
pieces = st.lists(
    st.one_of(
        st.sampled_from(
            [b"GET", b"POST", b" ", b"/", b"HTTP/1.1", b"HTTP/1.1 200 OK", b"HTTP/1.1 204", b"GET / HTTP/1.1", b"\r\n"]
        ),
        st.sampled_from([b"\r\n\r\n", b"\r", b"\n", b"\x00", b":", b": ", b"\t", b"X", b"Host: a", b"a", b"\xff"]),
        st.sampled_from([b"Content-Length: ", b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 1", b"5"]),
        st.sampled_from([b"Transfer-Encoding: chunked", b"hello", b"100", b"200", b"599", b"600", b",", b"0"]),
        st.binary(max_size=4),
    ),
    max_size=14,
).map(b"".join)

# What to do, where (wrapped around the length), and with which byte.
mutations = st.lists(
    st.tuples(st.sampled_from(["flip", "insert", "delete"]), st.integers(0, 10_000), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


def mutated(payload: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    bytes_ = bytearray(payload)
    for change, position, byte in changes:
        place = position % (len(bytes_) or 1)
        if change == "insert" or not bytes_:
            bytes_.insert(place, byte)
        elif change == "delete":
            del bytes_[place]
        else:
            bytes_[place] ^= byte
    return bytes(bytes_)


def check_both(payload: bytes) -> None:
    """It decodes, and then encodes to what decodes to the same message, or it raises WireError."""
    try:
        request = decode_request(payload)
    except WireError:
        pass
    else:
        assert decode_request(encode_request(request)) == request
    try:
        response = decode_response(payload)
    except WireError:
        pass
    else:
        assert decode_response(encode_response(response)) == response


@many
@given(requests())
def test_every_valid_request_survives_the_journey(request: Request) -> None:
    payload = encode_request(request)
    assert decode_request(payload) == request
    assert encode_request(decode_request(payload)) == payload


@many
@given(responses())
def test_every_valid_response_survives_the_journey(response: Response) -> None:
    payload = encode_response(response)
    assert decode_response(payload) == response
    assert encode_response(decode_response(payload)) == payload


@many
@given(tokens, targets, fields, bodies)
def test_a_length_that_was_not_declared_is_the_only_thing_added(
    method: str, target: bytes, fields: Fields, body: bytes
) -> None:
    added = [(b"Content-Length", b"%d" % len(body))] if body else []
    assert decode_request(encode_request(Request(method, target, fields, body))) == Request(
        method, target, fields + added, body
    )


@many
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_wire_error(payload: bytes) -> None:
    check_both(payload)


@settings(many, max_examples=1000)
@given(pieces)
def test_any_pieces_of_http_decode_or_raise_wire_error(payload: bytes) -> None:
    check_both(payload)


@settings(many, max_examples=600)
@given(requests(), mutations)
def test_a_mutated_request_decodes_or_raises_wire_error(request: Request, changes: list[tuple[str, int, int]]) -> None:
    check_both(mutated(encode_request(request), changes))


@settings(many, max_examples=600)
@given(responses(), mutations)
def test_a_mutated_response_decodes_or_raises_wire_error(
    response: Response, changes: list[tuple[str, int, int]]
) -> None:
    check_both(mutated(encode_response(response), changes))


@many
@given(
    st.text(max_size=8),
    st.binary(max_size=8),
    st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=12)), max_size=4),
    st.binary(max_size=8),
    st.integers(-1, 700),
)
def test_whatever_the_writer_accepts_the_reader_accepts(
    method: str, target: bytes, fields: Fields, body: bytes, status: int
) -> None:
    try:
        written = encode_request(Request(method, target, fields, body))
    except WireError:
        pass
    else:
        assert decode_request(written).body == body
    try:
        written = encode_response(Response(status, fields, body))
    except WireError:
        pass
    else:
        assert decode_response(written).body == body


@many
@given(st.lists(st.tuples(st.just(b"Content-Length"), st.one_of(values, st.binary(max_size=8))), max_size=3))
def test_a_declared_length_is_a_number_or_none_or_a_wire_error(fields: Fields) -> None:
    try:
        length = content_length(fields)
    except WireError:
        return
    assert (length is None) == (not fields)
    assert length is None or length >= 0


@many
@given(fields, values)
def test_end_to_end_fields_are_some_of_the_fields_in_their_order(fields: Fields, connection: bytes) -> None:
    kept = end_to_end([*fields, (b"Connection", connection)])
    rest = iter(fields)
    assert all(field in rest for field in kept)
    assert not any(name.lower() in HOP_BY_HOP for name, _ in kept)
    assert end_to_end(kept) == kept


# What an AMQP field table can hold, and more.
anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.decimals(),
        st.text(max_size=8),
        st.binary(max_size=8),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)
HEADERS = [
    "version", "attempt", "deadline", "repeatable", "route", "pool", "reason", "status", "duration", "traceparent",
    "sent", "x",
]  # fmt: skip


@settings(many, max_examples=1000)
@given(
    st.sampled_from(["request", "response", "claim", "redelivered", "cancel", "ended", "", "body", None]),
    st.one_of(st.none(), st.text(max_size=4)),
    st.one_of(st.just({}), st.just({"version": 1, "attempt": 1})),
    st.dictionaries(st.sampled_from(HEADERS), anything),
)
def test_any_headers_are_an_envelope_or_a_wire_error(
    kind: str | None, text: str | None, good: dict[str, Any], drawn: dict[str, Any]
) -> None:
    try:
        envelope = parse_envelope(kind=kind, correlation_id=text, app_id=text, reply_to=text, headers=good | drawn)
    except WireError:
        return
    assert isinstance(envelope, Envelope)
    assert envelope.kind == kind
