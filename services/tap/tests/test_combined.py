"""Combined Log Format, as Apache's and nginx's, and as the tools that read those expect it."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.tap.combined import EXTRA, combined, combined_plus

# The pattern that log readers carry around: seven columns, quotes around three of them.
PATTERN = re.compile(
    r'(?P<client>\S+) (?P<identity>\S+) (?P<user>\S+) \[(?P<time>[^\]]+)\] "(?P<request>[^"]*)" '
    r'(?P<status>\d{3}|-) (?P<bytes>\d+|-) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"'
)
AT = 971186136.9

LINE: dict[str, Any] = {
    "method": "GET",
    "target": "/apache_pb.gif",
    "host": "h",
    "client": "127.0.0.1",
    "agent": "Mozilla/4.08 [en] (Win98; I ;Nav)",
    "referer": "http://www.example.com/start.html",
    "status": 200,
    "bytes": 2326,
    "queue_ms": 1.5,
    "app_ms": 20.25,
    "worker": "worker-1",
    "attempt": 2,
    "reason": None,
    "pool": "default",
}


def test_a_line_is_what_apaches_manual_shows() -> None:
    """Its own example, but for the user, whom nobody knows here."""
    assert combined(LINE, AT) == (
        '127.0.0.1 - - [10/Oct/2000:13:55:36 +0000] "GET /apache_pb.gif HTTP/1.1" 200 2326 '
        '"http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)"'
    )


def test_the_longer_variant_goes_on_with_our_own_fields() -> None:
    """Each with its name, so that one may be added."""
    more = " queue_ms=1.5 app_ms=20.25 worker=worker-1 attempt=2 reason=- pool=default"
    assert combined_plus(LINE, AT) == combined(LINE, AT) + more


@pytest.mark.parametrize("line", [{}, dict.fromkeys(LINE), {"status": None, "referer": "", "unmatched": True}])
def test_what_is_missing_is_a_dash(line: dict[str, Any]) -> None:
    """Of an ending without a known request little is known."""
    assert combined(line, 0) == '- - - [01/Jan/1970:00:00:00 +0000] "-" - - "-" "-"'
    assert combined_plus(line, 0).endswith('"-" ' + " ".join(f"{name}=-" for name in EXTRA))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('a"b', r"a\x22b"),
        ("a\\b", r"a\x5Cb"),
        ("a\r\nb\tc\0d\x7fe", r"a\x0D\x0Ab\x09c\x00d\x7Fe"),
        ("é", r"\xC3\xA9"),
        ("\u2028", r"\xE2\x80\xA8"),
        ("\ud800", "?"),
        ("a b", "a b"),
    ],
)
def test_what_would_break_a_line_is_escaped_as_nginx_does(value: str, expected: str) -> None:
    """Bytes as `\\xHH`: who reads nginx's logs reads these."""
    found = PATTERN.fullmatch(combined(LINE | {"agent": value, "referer": value, "target": value}, AT))
    assert found is not None
    assert (found["agent"], found["referer"], found["request"]) == (expected, expected, f"GET {expected} HTTP/1.1")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("203.0.113.7, 10.0.0.1", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("a b", r"a\x20b"),
        ('x"] ', r"x\x22]"),
        (" , b", "-"),
    ],
)
def test_the_client_is_one_word(value: str, expected: str) -> None:
    """Of a list of proxies the first; it is what a client may have said of itself."""
    assert combined(LINE | {"client": value}, AT).split(" ")[0] == expected


texts = st.none() | st.text(st.characters())


@given(
    st.fixed_dictionaries(
        dict.fromkeys(("client", "method", "target", "referer", "agent", "worker", "reason", "pool"), texts)
    )
)
def test_no_text_breaks_a_line(line: dict[str, Any]) -> None:
    """Whatever clients and workers send: one line, all ASCII, and the columns where they belong."""
    found = combined(LINE | line, AT)
    assert PATTERN.fullmatch(found)
    assert found.isascii()
    assert found.isprintable()
    extra = combined_plus(LINE | line, AT).removeprefix(found + " ")
    assert [pair.partition("=")[0] for pair in extra.split(" ")] == list(EXTRA)
