"""Which partition a request belongs to, and the cookie that keeps a client there. Through HTTP: test_sticky_http.py."""

import re
from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.edge.sticky import cookie_of, cookies_for, partition_of, session_of
from rabbitbal.routes.policy import Sticky
from rabbitbal.wire.fields import Fields

COOKIE = Sticky(cookie="cart", header=None, issue=True)
HEADER = Sticky(cookie=None, header="X-Device", issue=False)


def cookies(*values: bytes) -> Fields:
    return [(b"Cookie", value) for value in values]


@pytest.mark.parametrize(
    ("value", "partition"), [(b"a", "10"), (b"", "20"), (b"00000000000000000000000000000000", "20")]
)
def test_a_partition_is_that_of_the_hash(value: bytes, partition: str) -> None:
    """Written down: edges of two versions must agree, or a session would have two workers."""
    assert partition_of(value) == partition
    assert int(partition) == int(sha256(value).hexdigest()[:16], 16) % 32


def test_values_are_spread_over_all_partitions() -> None:
    """Evenly enough: 3200 values, 100 to each on average."""
    found = Counter(partition_of(b"%d" % number) for number in range(3200))
    assert set(found) == {str(number) for number in range(32)}
    assert max(found.values()) < 150
    assert min(found.values()) > 60


@given(st.binary(max_size=200))
def test_whatever_the_value_the_partition_is_a_number(value: bytes) -> None:
    """Nothing of it gets into a header or a queue's name."""
    assert re.fullmatch(r"[0-9]|[12][0-9]|3[01]", partition_of(value))


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        (cookies(b"cart=1"), b"1"),
        (cookies(b"a=b; cart=1; c=d"), b"1"),
        (cookies(b"a=b;cart=1;c=d"), b"1"),
        (cookies(b"  cart\t= 1 "), b"1"),
        (cookies(b"a=b", b"cart=1"), b"1"),
        ([(b"cookie", b"cart=1")], b"1"),
        (cookies(b"cart=1; cart=2"), b"1"),
        (cookies(b"cart=1=2=="), b"1=2=="),
        (cookies(b'cart="1"'), b'"1"'),
        (cookies(b"cart=\xff\x80"), b"\xff\x80"),
        (cookies(b"cart="), b""),
        (cookies(b"Cart=1"), None),
        (cookies(b"cart"), None),
        (cookies(b"xcart=1; cartx=1; x=cart=1; =cart"), None),
        (cookies(b";;; ;=;==;\xff=\xff;"), None),
        (cookies(b""), None),
        ([(b"X-Cookie", b"cart=1")], None),
        ([], None),
    ],
)
def test_a_cookie_is_found(fields: Fields, value: bytes | None) -> None:
    """In one field or several, among others, whatever else stands there."""
    assert cookie_of(fields, b"cart") == value


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_no_cookie_field_does_harm(values: list[bytes]) -> None:
    """Whatever bytes it has."""
    session = session_of(COOKIE, cookies(*values))
    assert session.partition is not None


def test_a_client_with_the_cookie_gets_none() -> None:
    session = session_of(COOKIE, cookies(b"cart=1"))
    assert (session.partition, session.cookie) == (partition_of(b"1"), None)


@pytest.mark.parametrize("fields", [[], cookies(b"other=1"), cookies(b"cart="), cookies(b"cart")])
def test_a_client_without_the_cookie_gets_one_and_belongs_to_it_already(fields: Fields) -> None:
    """128 random bits. The request that it is issued to is hashed as the next one, which sends it, will be."""
    session = session_of(COOKIE, fields)
    assert session.cookie is not None
    name, value = session.cookie
    found = re.fullmatch(rb"cart=([0-9a-f]{32}); Path=/; HttpOnly; SameSite=Lax", value)
    assert name == b"set-cookie"
    assert found is not None
    assert session.partition == partition_of(found[1])
    assert session_of(COOKIE, cookies(b"cart=" + found[1])).partition == session.partition
    assert session_of(COOKIE, fields).cookie != session.cookie


@pytest.mark.parametrize(
    ("scheme", "secure"),
    [
        (b"https", True),
        (b"HTTPS", True),
        (b"wss", True),
        (b"https, http", True),
        (b"http", False),
        (b"http, https", False),
    ],
)
def test_it_is_secure_where_the_client_speaks_tls(scheme: bytes, secure: bool) -> None:
    """By the word of the first proxy."""
    session = session_of(COOKIE, [(b"X-Forwarded-Proto", scheme)])
    assert session.cookie is not None
    assert session.cookie[1].endswith(b"; Secure") is secure


def test_a_client_without_a_value_belongs_to_nobody_where_none_is_issued() -> None:
    """Any worker will do."""
    kept = Sticky(cookie="cart", header=None, issue=False)
    for policy in (kept, HEADER):
        session = session_of(policy, [])
        assert (session.partition, session.cookie) == (None, None)
    assert session_of(kept, cookies(b"cart=1")).partition == partition_of(b"1")


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([(b"X-Device", b"a")], b"a"),
        ([(b"x-device", b"a")], b"a"),
        ([(b"X-Device", b"a"), (b"X-Device", b"b")], b"a, b"),
        ([(b"X-Device", b"\xff\x80")], b"\xff\x80"),
        ([(b"X-Device", b"")], None),
    ],
)
def test_a_header_may_name_the_session(fields: Fields, value: bytes | None) -> None:
    """Fields of one name are one list; no value is none."""
    expected = None if value is None else partition_of(value)
    assert session_of(HEADER, fields).partition == expected


@pytest.mark.parametrize(
    ("response", "given"),
    [
        ([], True),
        ([(b"Set-Cookie", b"other=1; Path=/")], True),
        ([(b"Set-Cookie", b"other=cart=1")], True),
        ([(b"Set-Cookie", b"cart=app; Path=/x")], False),
        ([(b"Set-Cookie", b"other=1"), (b"set-cookie", b" cart =")], False),
    ],
)
def test_an_application_that_sets_the_cookie_has_its_own_way(response: Fields, given: bool) -> None:
    """RFC 6265 §4.1.1: one of a name. The application's is not lost."""
    cookie = (b"set-cookie", b"cart=ours; Path=/")
    assert cookies_for(response, cookie) == ([cookie] if given else [])
