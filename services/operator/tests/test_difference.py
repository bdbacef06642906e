"""What differs between two answers: found where it is, and nothing else is."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rabbitbal.operator.difference import (
    IGNORED,
    MOST_LINES,
    MOST_MEMBERS,
    Comparison,
    Difference,
    Given,
    Rules,
    compare,
)
from rabbitbal.wire.fields import Fields
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.recording import REDACTED, Exchange, Partial

ROOT = Path(__file__).parents[3]
JSON = [(b"Content-Type", b"application/json")]
TEXT = [(b"Content-Type", b"text/plain")]


def response(body: bytes = b"ok", fields: Fields | None = None, status: int = 200) -> Response:
    return Response(status, [*(TEXT if fields is None else fields), (b"Content-Length", b"%d" % len(body))], body)


def compared(was: Response, now: Response, rules: Rules | None = None, **more: Any) -> Comparison:
    exchange = Exchange("a1", 0, Request("GET", b"/"), was, **more)
    return compare(exchange, Given(now, len(now.body)), rules or Rules())


def members(was: Any, now: Any) -> list[tuple[str, str | None, str | None]]:
    found = compared(response(json.dumps(was).encode(), JSON), response(json.dumps(now).encode(), JSON))
    return [(each.name, each.recorded, each.replayed) for each in found.differences]


def test_equal_answers_do_not_differ() -> None:
    assert compared(response(), response()) == Comparison([], None)


def test_a_status_differs() -> None:
    found = compared(response(), response(status=404))
    assert found.differences == [Difference("status", "status", "200", "404")]


def test_fields_differ_by_value_presence_and_repeats() -> None:
    """Names without regard to case, and the order of different ones means nothing."""
    was = response(fields=[(b"A", b"1"), (b"b", b"2"), (b"C", b"3"), (b"Same", b"x")])
    now = response(fields=[(b"same", b"x"), (b"a", b"9"), (b"B", b"2"), (b"b", b"2"), (b"D", b"4")])
    assert compared(was, now).differences == [
        Difference("header", "a", "1", "9"),
        Difference("header", "b", "2", "2, 2"),
        Difference("header", "c", "3", None),
        Difference("header", "d", None, "4"),
    ]


def test_fields_of_the_moment_and_of_the_way_are_ignored() -> None:
    now = response(fields=[*TEXT, *((name.title(), b"x") for name in IGNORED), (b"Rabbitbal-Worker", b"w")])
    assert compared(response(), now).differences == []


def test_the_document_names_the_fields_that_are_ignored() -> None:
    text = (ROOT / "docs" / "replay.md").read_text().lower()
    assert all(f"`{name.decode()}`" in text for name in IGNORED)


def test_more_fields_can_be_ignored_or_few_compared() -> None:
    was, now = response(fields=[(b"A", b"1"), (b"B", b"1")]), response(fields=[(b"A", b"2"), (b"B", b"2")])
    assert [each.name for each in compared(was, now, Rules(frozenset({b"a"}))).differences] == ["b"]
    assert [each.name for each in compared(was, now, Rules(only=frozenset({b"a"}))).differences] == ["a"]


def test_a_length_is_not_told_beside_the_body() -> None:
    """It differs where the body does. That of an answer to HEAD stands for itself."""
    assert [each.kind for each in compared(response(b"a"), response(b"bc")).differences] == ["body"]
    was, now = Response(200, [(b"Content-Length", b"1")]), Response(200, [(b"Content-Length", b"2")])
    assert [each.name for each in compared(was, now).differences] == ["content-length"]


def test_of_a_cookie_the_name_is_compared() -> None:
    """What it holds is made for one client."""
    one = response(fields=[(b"Set-Cookie", b"s=1; Path=/")])
    assert compared(one, response(fields=[(b"Set-Cookie", b"s=2")])).differences == []
    assert [e.kind for e in compared(one, response(fields=[(b"Set-Cookie", b"t=1")])).differences] == ["header"]


def test_what_was_redacted_is_not_compared() -> None:
    """A field, a member of JSON, a body: nobody knows what was there. That it is missing now is a difference."""
    was = response(fields=[(b"Set-Cookie", REDACTED), (b"Set-Cookie", REDACTED)])
    assert compared(was, response(fields=[(b"Set-Cookie", b"s=1"), (b"set-cookie", b"t=1")])).differences == []
    assert [e.kind for e in compared(was, response(fields=[(b"Set-Cookie", b"s=1")])).differences] == ["header"]
    assert members({"token": "[redacted]", "a": 1}, {"token": "t", "a": 1}) == []
    assert members({"token": "[redacted]"}, {}) == [("$.token", '"[redacted]"', None)]
    assert compared(response(REDACTED), response(b"anything")) == Comparison([], "redacted")
    assert compared(response(b"a [redacted] b"), response(b"a b b")) == Comparison([], "redacted")


def test_json_bodies_differ_by_members() -> None:
    """With the way to each; the order of members and blanks mean nothing."""
    was, now = {"a": [1, {"b": 2}], "c": True, "gone": None}, {"c": 1, "a": [1, {"b": 3}, 4], "new": "x"}
    assert members(was, now) == [
        ("$.a[1].b", "2", "3"),
        ("$.a[2]", None, "4"),
        ("$.c", "true", "1"),
        ("$.gone", "null", None),
        ("$.new", None, '"x"'),
    ]
    assert members({"a": 1, "b": 2}, {"b": 2, "a": 1}) == []


def test_what_is_shown_of_json_is_bounded() -> None:
    """Members in number, values in length, and a document that is nested without end is no trap."""
    found = members(list(range(1000)), list(range(1, 1001)))
    assert len(found) == MOST_MEMBERS + 1
    assert found[-1][0] == "…"
    assert len(members({"a": "x" * 9999}, {"a": ""})[0][1] or "") <= 160
    deep = b"[" * 900 + b"1" + b"]" * 900
    assert compared(response(deep, JSON), response(deep.replace(b"1", b"2"), JSON)).differences
    endless = b"[" * 50_000
    assert compared(response(endless, JSON), response(endless + b"1", JSON)).differences


def test_text_differs_by_lines() -> None:
    """A unified diff, bounded in lines and in their length."""
    (found,) = compared(response(b"a\nb\nc\n"), response(b"a\nB\nc\n")).differences
    assert found.lines == ("--- recorded", "+++ replayed", "@@ -1,3 +1,3 @@", " a", "-b", "+B", " c")
    many = b"".join(b"%d\n" % number for number in range(300))
    (found,) = compared(response(many), response(many.replace(b"\n", b" " + b"x" * 190 + b"\n"))).differences
    assert len(found.lines) == MOST_LINES + 1
    assert max(map(len, found.lines)) <= 160


def test_other_bodies_differ_by_digest() -> None:
    """Binary ones, and texts that are too long to be compared line by line."""
    for was, now in ((b"\0\xff", b"\0\xfe"), (b"a\n" * 50_000, b"b\n" * 50_000)):
        (found,) = compared(response(was), response(now)).differences
        assert found.recorded == f"{len(was)} bytes, sha256 {hashlib.sha256(was).hexdigest()[:16]}"


def test_a_compressed_body_is_compared_by_what_it_says() -> None:
    """Two compressions of one text are equal."""
    gzipped = [*TEXT, (b"Content-Encoding", b"gzip")]
    fast, good = (gzip.compress(b"hello " * 99, level) for level in (1, 9))
    assert compared(response(fast, gzipped), response(good, gzipped)).differences == []
    other = gzip.compress(b"hello " * 98)
    assert [e.name for e in compared(response(fast, gzipped), response(other, gzipped)).differences] == ["text"]
    plain = response(b"hello " * 99, gzipped)
    assert compared(plain, response(good, gzipped), decoded=True).differences == []


@pytest.mark.parametrize("bad", [b"no gzip", gzip.compress(b"\0" * (20 << 20))])
def test_what_cannot_be_decompressed_is_compared_as_it_is(bad: bytes) -> None:
    """What is no gzip, and what would be too large."""
    gzipped = [*TEXT, (b"Content-Encoding", b"gzip")]
    (found,) = compared(response(bad, gzipped), response(gzip.compress(b"x"), gzipped)).differences
    assert found.name == "bytes"


def test_of_a_partial_body_what_is_known_is_compared() -> None:
    """Size and digest; and it is told that only the size is known."""
    now = Given(Response(200, [], b"first"), 100_000, "ab" * 32)

    def partial(part: Partial) -> Comparison:
        return compare(Exchange("a1", 0, Request("GET", b"/"), Response(200, []), response_body=part), now, Rules())

    assert partial(Partial(100_000)) == Comparison([], "size only")
    assert partial(Partial()) == Comparison([], "not recorded")
    assert partial(Partial(100_000, "ab" * 32)) == Comparison([], None)
    assert partial(Partial(99, "ab" * 32)).differences == [Difference("body", "size", "99 bytes", "100000 bytes")]
    assert partial(Partial(100_000, "cd" * 32)).differences == [Difference("body", "sha256", "cd" * 8, "ab" * 8)]


def test_a_large_answer_is_compared_by_digest() -> None:
    """Of which not all was kept."""
    body = b"x" * 70_000
    exchange = Exchange("a1", 0, Request("GET", b"/"), response(body))
    given = Given(replace(response(body), body=body[:10]), 70_000, hashlib.sha256(body).hexdigest())
    assert compare(exchange, given, Rules()).differences == []
    assert compare(exchange, replace(given, sha256="ab" * 32), Rules()).differences[0].name == "sha256"
