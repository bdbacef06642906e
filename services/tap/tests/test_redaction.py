"""Redaction: a secret's value never survives, and what is none stays byte for byte."""

import json
import time
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.runtime.settings import SettingsError, read
from rabbitbal.tap.redaction import DEFAULT, MARK, MOST_BODY, Redactor
from rabbitbal.tap.settings import Settings

FORM = b"application/x-www-form-urlencoded"
JSON = b"application/json"
SECRET = "hidden5ecret"
REDACTOR = Redactor()

names = st.sampled_from(DEFAULT.split(","))
# Of what a name that matters has no part in.
plain = st.text("bfghlmnqrvxz", min_size=1, max_size=8)
values = st.text(st.characters(codec="utf-8"), max_size=12)


@st.composite
def spelled(draw: st.DrawFn) -> str:
    """A name in the list, in the letter case and with the separators that somebody likes."""
    name = "".join(draw(st.sampled_from([letter, letter.upper()])) for letter in draw(names))
    name = name.replace("-", draw(st.sampled_from(["-", "_", ""])))
    return draw(st.sampled_from(["{}", "user[{}]", "user[{}][]", "a.{}", " {}"])).format(name)


@st.composite
def encoded(draw: st.DrawFn, text: str) -> str:
    """The same text, with some letters percent-encoded that need not be."""
    return "".join(f"%{ord(letter):02x}" if draw(st.booleans()) else quote(letter) for letter in text)


# --- targets


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", "/"),
        ("*", "*"),
        ("/a?b=c&d", "/a?b=c&d"),
        ("/a?", "/a?"),
        ("/?token=x", "/?token=[redacted]"),
        ("/?token=", "/?token=[redacted]"),
        ("/?token", "/?token"),
        ("/?a=1&token=x&b=2&token=y", "/?a=1&token=[redacted]&b=2&token=[redacted]"),
        ("/?Access-Token=x&accessToken=y&A=z", "/?Access-Token=[redacted]&accessToken=[redacted]&A=z"),
        ("/?%74oken=x", "/?%74oken=[redacted]"),
        ("/?user%5Bpassword%5D=x&user[name]=y", "/?user%5Bpassword%5D=[redacted]&user[name]=y"),
        ("/?token=x;y", "/?token=[redacted]"),
        ("/?a=1;token=x;b=2", "/?a=1;token=[redacted]"),
        ("/?token=a/b?c=d", "/?token=[redacted]"),
        ("/?tokens=x&my_token_id=y", "/?tokens=x&my_token_id=y"),
        ("/?next=/in?token=x", "/?next=/in?token=[redacted]"),
        ("/?next=%2Fin%3Ftoken%3Dx&a=1", "/?next=[redacted]&a=1"),
        ("/?next=%2Fin%3Fb%3Dx", "/?next=%2Fin%3Fb%3Dx"),
        ("/?next=%252Fin%253Ftoken%253Dx", "/?next=[redacted]"),
        ("/?padded=abc%3D%3D&mail=a%40b.example", "/?padded=abc%3D%3D&mail=a%40b.example"),
        ("/?to=http%3A%2F%2Fme%3Ax%40h%2F", "/?to=[redacted]"),
        ("/?to=http://me:x@h/&mail=a@b.example", "/?to=http://[redacted]@h/&mail=a@b.example"),
        ("/a;jsessionid=x/b?c=d", "/a;jsessionid=[redacted]/b?c=d"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/a#access_token=x&b=c", "/a#access_token=[redacted]&b=c"),
        ("/a?b=c#access_token=x", "/a?b=c#access_token=[redacted]"),
        ("http://me:x@h.example/a?b=c", "http://[redacted]@h.example/a?b=c"),
        ("http://x@h/", "http://[redacted]@h/"),
        ("http://h/a@b", "http://h/a@b"),
        ("/a@b://c", "/a@b://c"),
        ("//a@b/c", "//a@b/c"),
    ],
)  # fmt: skip
def test_a_targets_secrets_are_replaced(target: str, expected: str) -> None:
    """And nothing else is."""
    assert REDACTOR.target(target.encode()).decode() == expected


@given(
    name=spelled(), before=st.lists(st.tuples(plain, values)), after=st.lists(st.tuples(plain, values)), data=st.data()
)
def test_no_secret_in_a_query_survives(name: str, before: list[Any], after: list[Any], data: st.DataObject) -> None:
    """However its name is spelled and encoded, wherever it stands; what stands around it stays."""
    around = urlencode(before), urlencode(after)
    pair = f"{data.draw(encoded(name))}={SECRET}"
    found = REDACTOR.target(("/p?" + "&".join([around[0], pair, around[1]])).encode()).decode()
    assert SECRET not in found
    assert found.startswith("/p?" + around[0])
    assert found.endswith("[redacted]&" + around[1])


@given(pairs=st.lists(st.tuples(plain, values), max_size=5), path=st.text("abc/.-~%", max_size=20))
def test_a_target_without_secrets_is_unchanged(pairs: list[Any], path: str) -> None:
    target = f"/{path}?{urlencode(pairs)}".encode()
    assert REDACTOR.target(target) == target


@given(st.binary())
def test_no_target_is_too_strange(target: bytes) -> None:
    """It comes from anybody. What was redacted once has nothing more to be redacted."""
    once = REDACTOR.target(target)
    assert REDACTOR.target(once) == once


@pytest.mark.parametrize(
    "target",
    [
        b"/?" + b"a" * 130_000,
        b"/?" + b";" * 130_000,
        b"/?" + b"=" * 130_000,
        b"/?a=" + b"%3D" * 40_000,
        b"/?a=" + b"%25" * 40_000 + b"3D",
        b"/" + b";" * 130_000,
        b"/" + b";a=" * 40_000,
        b"http://" + b"//" * 60_000,
        b"x" * 130_000 + b"://",
        b"/?" + b"a&" * 60_000,
        b"/?" + b"".join(b"%d=&" % n for n in range(20_000)),
        b"/?a=" + b"://" * 40_000 + b"@",
    ],
)
def test_a_hostile_target_costs_no_more_than_its_length(target: bytes) -> None:
    """A part of a second for the longest head that the wire format allows: no pattern tries a stranger's text in all
    its combinations."""
    started = time.process_time()
    REDACTOR.target(target)
    REDACTOR.fields([(b"Referer", target)])
    assert time.process_time() - started < 2


# --- fields


def test_fields_keep_their_order_and_repeats() -> None:
    """Credentials go as a whole, the scheme too; of references only the secrets."""
    fields = [
        (b"Host", b"a"),
        (b"AUTHORIZATION", b"Basic eDp5"),
        (b"cookie", b"a=1"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"X-Api-Key", b"k"),
        (b"Referer", b"https://me:x@a.example/b?code=1&c=d#token=e"),
        (b"Location", b"//me:x@a.example/b"),
        (b"Link", b'<https://a.example/?page=2&token=x>; rel="next"'),
        (b"X-Token-Count", b"2"),
    ]
    assert REDACTOR.fields(fields) == [
        (b"Host", b"a"),
        (b"AUTHORIZATION", MARK),
        (b"cookie", MARK),
        (b"Set-Cookie", MARK),
        (b"Set-Cookie", MARK),
        (b"X-Api-Key", MARK),
        (b"Referer", b"https://[redacted]@a.example/b?code=[redacted]&c=d#token=[redacted]"),
        (b"Location", b"//[redacted]@a.example/b"),
        (b"Link", b"<https://a.example/?page=2&token=[redacted]"),
        (b"X-Token-Count", b"2"),
    ]


@given(st.lists(st.tuples(spelled(), st.binary(min_size=11).map(lambda v: SECRET.encode() + v))))
def test_no_field_of_the_list_survives(fields: list[tuple[str, bytes]]) -> None:
    """Whatever is in it."""
    found = REDACTOR.fields([(name.encode(), value) for name, value in fields])
    assert found == [(name.encode(), MARK) for name, _ in fields]


# --- bodies


def test_a_form_is_redacted_like_a_query() -> None:
    body = b"user=me&password=a+b%26c&remember=1"
    assert REDACTOR.body(FORM + b"; charset=utf-8", body) == b"user=me&password=[redacted]&remember=1"
    assert REDACTOR.body(FORM, b"a=b&c") == b"a=b&c"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('{"password": "x"}', '{"password": "[redacted]"}'),
        ('{ "token" :\n [1, {"b": "}"}] , "c":1.0e5 }', '{ "token" :\n "[redacted]" , "c":1.0e5 }'),
        ('[{"a": {"secret": null}}, {"secret": {}}]', '[{"a": {"secret": "[redacted]"}}, {"secret": "[redacted]"}]'),
        ('{"token": "x", "token": "y"}', '{"token": "[redacted]", "token": "[redacted]"}'),
        (r'{"pass\u0077ord": "x\"}", "b": "\\"}', r'{"pass\u0077ord": "[redacted]", "b": "\\"}'),
        ('{"accessToken": {"token": {"code": 1}}, "b": 2}', '{"accessToken": "[redacted]", "b": 2}'),
        ('["token", "password", {"a": "token"}]', '["token", "password", {"a": "token"}]'),
        ('{"token": {}, "token": [], "a": []}', '{"token": "[redacted]", "token": "[redacted]", "a": []}'),
        ('\ufeff{"token": -1}', '\ufeff{"token": "[redacted]"}'),
        ('"token"', '"token"'),
        ('{"n": ' + "9" * 5000 + "}", '{"n": ' + "9" * 5000 + "}"),
    ],
)
def test_members_of_json_are_replaced_at_any_depth(body: str, expected: str) -> None:
    """What stands around them stays as it was, blanks and numbers included."""
    assert REDACTOR.body(JSON, body.encode()).decode() == expected


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=10,
)


@given(
    tree=trees,
    name=spelled(),
    secret=trees,
    indent=st.sampled_from([None, 2]),
    escaped=st.booleans(),
    kind=st.sampled_from([JSON, b"application/problem+json", b"Text/JSON; charset=utf-8"]),
)
def test_no_secret_in_json_survives(
    tree: Any, name: str, secret: Any, indent: int | None, escaped: bool, kind: bytes
) -> None:
    """Anywhere in any document; and the rest of it is still the same document."""
    body = json.dumps(
        {"x": [tree, {name: [SECRET, secret, {"q": SECRET}], "z": tree}]}, indent=indent, ensure_ascii=escaped
    )
    found = REDACTOR.body(kind, body.encode())
    assert SECRET.encode() not in found
    assert json.loads(found) == {"x": [tree, {name: "[redacted]", "z": tree}]}


@given(trees)
def test_json_without_secrets_is_unchanged(tree: Any) -> None:
    body = json.dumps(tree, indent=1).encode()
    assert REDACTOR.body(JSON, body) == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"password": "hidden',
        b'{"password": "hidden"}}',
        b"password=hidden",
        b'{"a": "\xff", "password": "hidden"}',
        '{"password": "hidden"}'.encode("utf-16"),
        b"\x1f\x8b\x08\x00",
        b"[" * 100_000,
        b"{'password': 'hidden'}",
    ],
)
def test_what_claims_to_be_json_and_is_not_goes_as_a_whole(body: bytes) -> None:
    """Nobody can say where in it a secret ends."""
    assert REDACTOR.body(JSON, body) == MARK


def test_lines_of_json_are_redacted_one_by_one() -> None:
    body = b'{"a": 1}\n{"token": "x"}\r\n\n'
    assert REDACTOR.body(b"application/x-ndjson", body) == b'{"a": 1}\n{"token": "[redacted]"}\r\n\n'
    assert REDACTOR.body(b"application/x-ndjson", body + b'{"token": ') == MARK


def multipart(*parts: tuple[str, str], line: str = "\r\n") -> bytes:
    """Each part's head and content."""
    found = "".join(f"--b0{line}{head}{line}{line}{content}{line}" for head, content in parts)
    return f"{found}--b0--{line}".encode()


MULTIPART = b'multipart/form-data; boundary="b0"'


@pytest.mark.parametrize("line", ["\r\n", "\n"])
def test_parts_of_a_form_are_redacted_by_their_names(line: str) -> None:
    """A part with a type of its own is looked into; a file of another type stays."""
    parts = [
        ('Content-Disposition: form-data; name="user"', "me"),
        ('content-disposition: form-data; name="Password"', f"x{line}y"),
        ("Content-Disposition: form-data; name=token", ""),
        (f'Content-Type: application/json{line}Content-Disposition: form-data; name="d"', '{"secret": 1}'),
        ('Content-Disposition: form-data; name="f"; filename="token"', "\x01\x02token=x"),
    ]
    found = REDACTOR.body(MULTIPART, multipart(*parts, line=line))
    contents = ["me", "[redacted]", "[redacted]", '{"secret": "[redacted]"}', "\x01\x02token=x"]
    assert found == multipart(*((head, content) for (head, _), content in zip(parts, contents, strict=True)), line=line)


@pytest.mark.parametrize(
    "head",
    [
        "Content-Disposition: form-data; name*=UTF-8''pass%77ord",
        'Content-Disposition: form-data; name*0="pass"; name*1="word"',
        'Content-Disposition: form-data; name="a"; name="password"',
        'Content-Disposition: form-data;\r\n name="password"',
        r'Content-Disposition: form-data; name="pass\word"',
        'Content-Disposition: form-data; filename="C:\\"; name="password"',
        'Content-Disposition: form-data; name="user[password]"',
        'Content-Disposition: form-data; NAME = "password"',
        'Content-Disposition: form-data; name="password',
        "Content-Disposition: form-data",
        "Content-Type: text/plain",
        'Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="password"',
        'Content-Disposition: form-data; name="a"\r\nContent-Type: application/json',
        'Content-Disposition: form-data; name="a"\r\nContent-Type: multipart/mixed; boundary=c',
    ],
)
def test_a_part_whose_name_can_be_read_in_two_ways_is_replaced(head: str) -> None:
    """As is one that has none."""
    found = REDACTOR.body(MULTIPART, multipart((head, SECRET)))
    assert SECRET.encode() not in found
    assert MARK in found


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"multipart/form-data", multipart(("X: y", SECRET))),
        (b"multipart/form-data; boundary=b0; boundary=b1", multipart(("X: y", SECRET))),
        (b"multipart/form-data; boundary=other", multipart(("X: y", SECRET))),
        (MULTIPART, b"password=" + SECRET.encode()),
        (MULTIPART, multipart(('Content-Disposition: form-data; name="a"', SECRET))[:-9]),
        (MULTIPART, SECRET.encode() + b"\r\n" + multipart(('Content-Disposition: form-data; name="a"', "b"))),
        (MULTIPART, multipart(('Content-Disposition: form-data; name="a"', f"\r\n--b0x\r\nX: y\r\n\r\n{SECRET}"))),
        (MULTIPART, b"--b0\r\n" + SECRET.encode() + b"\r\n--b0--\r\n"),
        (FORM, b"\x1f\x8b\x08\x00\x00" + SECRET.encode()),
        (FORM, b"a=b&" + SECRET.encode() * (MOST_BODY // 10)),
        (JSON, b"[" + b" " * MOST_BODY + b'"' + SECRET.encode() + b'"]'),
        (MULTIPART, b"--b0" * (MOST_BODY // 4)),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_read_goes_as_a_whole(content_type: bytes, body: bytes) -> None:
    """It is cut, compressed, longer than is looked at, or no such thing."""
    assert REDACTOR.body(content_type, body) == MARK


@given(kind=st.sampled_from([JSON, FORM, MULTIPART, b"application/x-ndjson"]), body=st.binary())
def test_no_body_is_too_strange(kind: bytes, body: bytes) -> None:
    """It comes from anybody."""
    assert isinstance(REDACTOR.body(kind, body), bytes)


@given(
    parts=st.lists(st.tuples(st.one_of(plain, spelled()), st.text("ab-\r\n ", max_size=20)), min_size=1, max_size=4),
)
def test_no_secret_part_survives(parts: list[tuple[str, str]]) -> None:
    """Among others, which stay."""
    heads = [f'Content-Disposition: form-data; name="{name}"' for name, _ in parts]
    secret = [set(name) - set("bfghlmnqrvxz") != set() for name, _ in parts]
    sent = [(head, SECRET if hide else text) for head, hide, (_, text) in zip(heads, secret, parts, strict=True)]
    kept = [(head, "[redacted]" if hide else text) for head, hide, (_, text) in zip(heads, secret, parts, strict=True)]
    assert REDACTOR.body(MULTIPART, multipart(*sent)) == multipart(*kept)


@pytest.mark.parametrize("content_type", [None, b"", b"text/plain", b"image/png", b"application/octet-stream"])
@given(body=st.binary())
def test_bodies_of_other_types_are_unchanged(content_type: bytes | None, body: bytes) -> None:
    """What is in them cannot be known."""
    assert REDACTOR.body(content_type, body) == body


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b'{"a":' * 200_000),
        (JSON, b'"' + b"\\\\" * 500_000),
        (JSON, b"[" + b'{"token":1},' * 80_000 + b"1]"),
        (FORM, b"token=1&" * 130_000),
        (MULTIPART, b"--b0\r\nContent-Disposition: form-data; name=" + b" " * 900_000 + b"\r\n\r\n--b0--"),
        (MULTIPART, b"--b0\r\nContent-Disposition: form-data" + b"; \t" * 300_000 + b"\r\n\r\n--b0--"),
        (MULTIPART, b"--b0\r\nContent-Disposition: form-data" + b'; a="\\' * 150_000 + b"\r\n\r\n--b0--"),
        (MULTIPART + b"; a" * 30_000, b"--b0"),
    ],
)
def test_a_hostile_body_costs_no_more_than_its_length(content_type: bytes, body: bytes) -> None:
    """A part of a second for the longest body that is looked at."""
    started = time.process_time()
    REDACTOR.body(content_type, body)
    assert time.process_time() - started < 4


# --- rules


def test_a_list_of_names_takes_the_place_of_the_default() -> None:
    """With a plus before each name it is added to that."""
    fields = [(b"X-Pin", b"1"), (b"Cookie", b"2"), (b"Card", b"3")]
    assert [value for _, value in Redactor("x-pin, card").fields(fields)] == [MARK, b"2", MARK]
    assert [value for _, value in Redactor("+X_PIN ,+other").fields(fields)] == [MARK, MARK, b"3"]
    assert [value for _, value in Redactor().fields(fields)] == [b"1", MARK, b"3"]
    assert [value for _, value in Redactor(read(Settings, {}).redact).fields(fields)] == [b"1", MARK, b"3"]


@pytest.mark.parametrize("text", ["+a,b", "a,+b", "a b", "a,,b", "-", "_", "a=b", "x" * 65, "+", "a;b", "é"])
def test_a_bad_list_of_names_stops_the_tap(text: str) -> None:
    """Half of a list would look like a whole one."""
    with pytest.raises(SettingsError, match="RABBITBAL_REDACT"):
        read(Settings, {"RABBITBAL_REDACT": text})


def test_what_is_remembered_of_names_is_bounded() -> None:
    """A client can send as many as it likes."""
    redactor = Redactor()
    for number in range(5000):
        redactor.target(b"/?%d%s=1" % (number, b"x" * 1000))
        redactor.target(b"/?%d=1" % number)
    assert redactor._known.cache_info().currsize <= 2048
    assert redactor.target(b"/?" + b"a[" * 50 + b"token]=x").endswith(MARK)
