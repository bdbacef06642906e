"""Verdicts there and back, and what somebody else sent for one."""

import contextlib
import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.verdicts import (
    LONGEST_REASON,
    MOST_BYTES,
    MOST_REASONS,
    Suspicion,
    Verdict,
    client_in,
    client_of,
    decode_verdict,
    encode_verdict,
)

VERDICT = Verdict("203.0.113.7", Suspicion.SUSPECT, 0.93, ("4 requests hold an attack",), 1000, 301_000)
NESTED: Any = {"a": [{"b": [None]}]}


def changed(**changes: Any) -> bytes:
    """`...` leaves the name out."""
    found = asdict(VERDICT) | changes
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


@given(
    st.builds(
        Verdict,
        st.text("0123456789abcdefABCDEF.:", min_size=2, max_size=45),
        st.sampled_from(Suspicion),
        st.floats(0, 1),
        st.lists(st.text(st.characters(max_codepoint=0x7E), max_size=40), max_size=MOST_REASONS).map(tuple),
        st.integers(0, (1 << 63) - 1),
        st.integers(0, (1 << 63) - 1),
    )
)
def test_a_verdict_survives_the_journey(verdict: Verdict) -> None:
    """Every one of a sensible size."""
    assert decode_verdict(encode_verdict(verdict)) == verdict


def test_what_a_newer_tap_says_besides_is_ignored() -> None:
    """As it is in figures."""
    assert decode_verdict(changed(mood={"a": 1})) == VERDICT


@given(st.binary(max_size=200))
def test_bytes_of_anybody_are_a_verdict_or_an_error(payload: bytes) -> None:
    """And no other exception."""
    with contextlib.suppress(WireError):
        decode_verdict(payload)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("client", [..., None, "", "a", "localhost", "1.2.3.4\n", "1.2.3.4, 5", "1" * 46, 7, True, ["::1"], NESTED]),
        ("kind", [..., None, "", "Suspect", "bot", "SUSPECT", 1, True, ["suspect"], NESTED]),
        ("score", [..., None, -0.1, 1.1, 10**400, True, "0.5", [0.5], NESTED]),
        ("reasons", [..., None, "text", {}, [1], [None], ["x" * (LONGEST_REASON + 1)], ["x"] * 13, [["x"]]]),
        ("since", [..., None, -1, 1 << 63, 1.5, True, "1", [1], NESTED]),
        ("until", [..., None, -1, 1 << 63, 1.5, True, "1", [1], NESTED]),
    ],
)  # fmt: skip
def test_a_name_that_is_missing_or_wrong_makes_it_no_verdict(name: str, values: list[Any]) -> None:
    """Each name, each way to be wrong."""
    for value in values:
        with pytest.raises(WireError):
            decode_verdict(changed(**{name: value}))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b'"suspect"',
        encode_verdict(VERDICT)[:-1],
        encode_verdict(VERDICT) + b"x",
        changed().replace(b"0.93", b"NaN"),
        changed().replace(b"0.93", b"Infinity"),
        b"[" * 8000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_object_is_no_verdict(payload: bytes) -> None:
    """Nor is half of one, or one with more behind it, or a number that is none."""
    with pytest.raises(WireError):
        decode_verdict(payload)


def test_a_verdict_that_is_too_large_is_not_read() -> None:
    """Its length is looked at first."""
    with pytest.raises(WireError, match=str(MOST_BYTES)):
        decode_verdict(changed(more="x" * MOST_BYTES))


def test_the_longest_reasons_fit_into_the_largest_payload() -> None:
    """In ASCII, which the tap's own are."""
    longest = Verdict("1:" * 22, Suspicion.SUSPECT, 0.5, ("x" * LONGEST_REASON,) * MOST_REASONS, 1 << 62, 1 << 62)
    assert decode_verdict(encode_verdict(longest)) == longest


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.0.0.1", "203.0.113.7"),
        (" 2001:db8::7 ,10.0.0.1", "2001:db8::7"),
        ("::ffff:203.0.113.7", "::ffff:203.0.113.7"),
        ("", None),
        (",203.0.113.7", None),
        ("unknown", None),
        ("203.0.113.7:1234x", None),
        ("<script>", None),
        ("1" * 1000, None),
        (None, None),
    ],
)
def test_a_client_is_the_first_address_of_x_forwarded_for(forwarded: str | None, client: str | None) -> None:
    """What is no address is nobody."""
    assert client_in(forwarded) == client
    fields = [] if forwarded is None else [(b"X-Forwarded-For", forwarded.encode())]
    assert client_of([(b"Host", b"a"), *fields]) == client
