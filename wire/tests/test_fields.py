"""What a proxy passes on, and what a message says of its length."""

import pytest

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import HOP_BY_HOP, Fields, check_field, content_length, end_to_end, first, values, without

HOST = (b"Host", b"a")
A, B = (b"X-A", b"1"), (b"X-B", b"2")

END_TO_END: dict[str, tuple[Fields, Fields]] = {
    "nothing": ([], []),
    "nothing to remove": ([HOST, A, B, A], [HOST, A, B, A]),
    "the named field and Connection itself": ([A, (b"Connection", b"X-A"), B], [B]),
    "every repeat of the named field": ([A, B, A, (b"Connection", b"x-a"), (b"x-a", b"3")], [B]),
    "names in any case": ([A, (b"CONNECTION", b"x-A"), B], [B]),
    "several names": ([A, (b"Connection", b"X-A,X-B"), B, HOST], [HOST]),
    "several Connection fields": ([(b"Connection", b"X-A"), A, B, (b"connection", b"X-B"), HOST], [HOST]),
    "odd spacing": ([A, (b"Connection", b" \tX-A\t ,,  , X-B ,"), B, HOST], [HOST]),
    "an empty Connection": ([A, (b"Connection", b""), B], [A, B]),
    "a name of nothing present": ([A, (b"Connection", b"close, X-C"), B], [A, B]),
    "part of a name is not the name": ([A, (b"Connection", b"X"), (b"X-A-B", b"")], [A, (b"X-A-B", b"")]),
    "a space is no separator": ([A, (b"Connection", b"X-A X-B"), B], [A, B]),
    "Host cannot be named away": ([HOST, (b"Connection", b"host, x-a"), A], [HOST]),
    "nor Content-Length": (
        [(b"Content-Length", b"1"), (b"Connection", b"Content-Length")],
        [(b"Content-Length", b"1")],
    ),
    "keep-alive": ([(b"Connection", b"keep-alive"), (b"Keep-Alive", b"timeout=5"), A], [A]),
    "an upgrade": ([(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AA")], []),
    "hop-by-hop fields that Connection does not name": (
        [
            (b"TE", b"trailers"),
            (b"Trailer", b"X"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Proxy-Connection", b"close"),
            (b"Proxy-Authorization", b"Basic eDp5"),
            (b"Proxy-Authenticate", b"Basic"),
            (b"upgrade", b"websocket"),
            (b"keep-alive", b"1"),
            A,
        ],
        [A],
    ),
    "credentials for the application": (
        [(b"Authorization", b"Basic eDp5"), (b"WWW-Authenticate", b"Basic")],
        [(b"Authorization", b"Basic eDp5"), (b"WWW-Authenticate", b"Basic")],
    ),
    "two cookies": ([(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")], [(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")]),
}


@pytest.mark.parametrize(("fields", "kept"), END_TO_END.values(), ids=END_TO_END.keys())
def test_end_to_end_fields_go_on_and_the_others_do_not(fields: Fields, kept: Fields) -> None:
    before = list(fields)
    assert end_to_end(fields) == kept
    assert end_to_end(iter(fields)) == kept
    assert fields == before


def test_every_hop_by_hop_field_is_removed_in_any_case() -> None:
    for name in HOP_BY_HOP:
        assert end_to_end([(name, b"x"), (name.upper(), b"x"), (name.title(), b"x")]) == []


LENGTHS: dict[str, tuple[Fields, int | None]] = {
    "none": ([A], None),
    "one": ([A, (b"Content-Length", b"12"), B], 12),
    "nought": ([(b"content-length", b"0")], 0),
    "leading zeros": ([(b"Content-Length", b"0012")], 12),
    "space around it": ([(b"Content-Length", b" \t12 ")], 12),
    "18 digits": ([(b"Content-Length", b"9" * 18)], 10**18 - 1),
    "two that agree": ([(b"Content-Length", b"12"), (b"CONTENT-LENGTH", b"12")], 12),
    "a list that agrees": ([(b"Content-Length", b"12, 12 ,12")], 12),
}


@pytest.mark.parametrize(("fields", "length"), LENGTHS.values(), ids=LENGTHS.keys())
def test_the_declared_length_is_found(fields: Fields, length: int | None) -> None:
    assert content_length(fields) == length


@pytest.mark.parametrize(
    "declared",
    [
        [b""], [b" "], [b"+5"], [b"-5"], [b"0x5"], [b"5.0"], [b"5e1"], [b"1_0"], [b"5 5"], [b"five"], [b"5;"],
        [b"5,"], [b",5"], [b"5,6"], [b"5", b"6"], [b"5", b""], [b"5", b"05"], [b"9" * 19], [b"9" * 100_000],
        [b"\xd9\xa5"], [b"\xb2"], [b"5\x00"],
    ],
)  # fmt: skip
def test_lengths_that_differ_or_are_no_number_are_refused(declared: list[bytes]) -> None:
    with pytest.raises(WireError):
        content_length([(b"Content-Length", value) for value in declared])


@pytest.mark.parametrize("value", [b"", b"a", b"a b\tc", b"\x80\xff", b'~!"(),/:;<=>?@[\\]{}'])
def test_a_field_of_a_token_and_printable_octets_is_good(value: bytes) -> None:
    check_field(b"X-Any_1.0~", value)


@pytest.mark.parametrize("byte", [*range(0x09), *range(0x0A, 0x20), 0x7F])
def test_no_control_character_stands_in_a_value(byte: int) -> None:
    for value in (b"%c", b"a%c", b"%ca", b"a%cb"):
        with pytest.raises(WireError):
            check_field(b"X", value % byte)


@pytest.mark.parametrize("byte", [*range(0x21), *b'"(),/:;<=>?@[\\]{}', *range(0x7F, 0x100)])
def test_no_delimiter_stands_in_a_name(byte: int) -> None:
    for name in (b"%c", b"a%c", b"%ca", b"a%cb"):
        with pytest.raises(WireError):
            check_field(name % byte, b"")


def test_fields_are_found_and_left_out_by_lower_case_name() -> None:
    fields = [A, B, (b"x-a", b"3")]
    assert list(values(fields, b"x-a")) == [b"1", b"3"]
    assert first(fields, b"x-a") == b"1"
    assert first(fields, b"x-c") is None
    assert without(fields, b"x-a") == [B]
    assert without(fields, b"x-a", b"x-b") == []
