"""Redacts the bodies that have named members: JSON and forms with parts. Everything but the values that go stays byte
for byte: a recorded body is sent again."""

import json
import re
from collections.abc import Callable

Secret = Callable[[bytes], bool]
"""Whether the value of that name must not be stored."""


class Unreadable(ValueError):
    """The body is not what its type says."""


# --- JSON


# Of text that is valid JSON: strings, what opens, closes and separates, and numbers and words.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+')
_BOM = b"\xef\xbb\xbf"


def redact_json(body: bytes, secret: Secret, mark: bytes) -> bytes:
    """Members at any depth, in arrays, too, and each of several with the same name. Raises Unreadable."""
    try:
        text = body.removeprefix(_BOM).decode()
        # Numbers are not looked at: some are too long for Python.
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        raise Unreadable from None
    parts: list[str] = []
    end = 0
    for start, stop in _members(text, secret):
        parts += [text[end:start], json.dumps(mark.decode())]
        end = stop
    if not parts:
        return body
    prefix = _BOM if body.startswith(_BOM) else b""
    return prefix + "".join([*parts, text[end:]]).encode()


def _members(text: str, secret: Secret) -> list[tuple[int, int]]:
    """Where the values of secret members begin and end. ``text`` is valid."""
    found: list[tuple[int, int]] = []
    key = ""
    depth = 0
    # Of the value that is skipped: where it began, and how deep that is.
    start, level = -1, 0
    wanted = False
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word == ":":
            wanted = start < 0 and secret(json.loads(key).encode(errors="replace"))
            continue
        if wanted:
            start, level, wanted = token.start(), depth, False
        if word in "{[":
            depth += 1
        elif word in "}]":
            depth -= 1
        elif word != ",":
            key = word
        if start >= 0 and depth == level and word not in ",":
            found.append((start, token.end()))
            start = -1
    return found


# --- multipart/form-data (RFC 7578)


# Possessive, as a stranger's blanks must not be tried in all their combinations.
_PARAMETER = re.compile(rb';\s*+([^\s=;"]++)\s*+=\s*+("(?:[^"\\]|\\.)*+"\s*+|[^;"]*+)', re.DOTALL)
_REST = re.compile(rb";?\s*+")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_LONGEST_BOUNDARY = 200


def redact_multipart(
    content_type: bytes, body: bytes, secret: Secret, redact: Callable[[bytes | None, bytes], bytes], mark: bytes
) -> bytes:
    """Parts whose name is secret, and members of parts that have a type of their own. Raises Unreadable."""
    found = [value for name, value in _parameters(content_type) if name == b"boundary"]
    if len(found) != 1 or not 0 < len(found[0]) <= _LONGEST_BOUNDARY:
        raise Unreadable
    dashes = b"--" + found[0]
    # RFC 2046 §5.1.1: the delimiter begins a line; the line end before it belongs to it. Some write a bare line feed.
    pieces = re.split(rb"((?:\A|\r?\n)" + re.escape(dashes) + rb"(?:--)?[ \t]*+(?:\r?\n|\Z))", body)
    delimiters = pieces[1::2]
    if (
        len(delimiters) < 2
        or not delimiters[-1].rstrip().endswith(dashes + b"--")
        # What stands outside of the parts is read by nobody, or by a reader that sees parts where we see none.
        or (pieces[0] + pieces[-1]).strip()
        or body.count(dashes) != len(delimiters)
    ):
        raise Unreadable
    for number in range(2, len(pieces) - 1, 2):
        pieces[number] = _part(pieces[number], secret, redact, mark)
    return b"".join(pieces)


def _part(part: bytes, secret: Secret, redact: Callable[[bytes | None, bytes], bytes], mark: bytes) -> bytes:
    end = _END_OF_HEAD.search(part)
    if end is None:
        raise Unreadable
    head, content = part[: end.end()], part[end.end() :]
    content_type: bytes | None = None
    names: list[bytes] = []
    for line in _FOLD.sub(b" ", head).splitlines():
        field, _, value = line.partition(b":")
        if field.strip().lower() == b"content-disposition":
            names += [text for name, text in _parameters(value) if name.partition(b"*")[0] == b"name"]
        elif field.strip().lower() == b"content-type":
            content_type = value.strip()
    # RFC 7578 §4.2: "The Content-Disposition header field MUST also contain an additional parameter of 'name'".
    # One that has none, or several, is read in different ways.
    if len(names) != 1 or secret(names[0]) or secret(names[0].rpartition(b"'")[2]):
        return head + mark
    return head + redact(content_type, content)


def _parameters(value: bytes) -> list[tuple[bytes, bytes]]:
    """Of `form-data; name="a"`. Raises Unreadable for what readers may read in different ways."""
    found = []
    end = value.find(b";") if b";" in value else len(value)
    while parameter := _PARAMETER.match(value, end):
        text = parameter[2].strip()
        found.append((parameter[1].lower(), _ESCAPED.sub(rb"\1", text[1:-1]) if text.startswith(b'"') else text))
        end = parameter.end()
    if not _REST.fullmatch(value, end):
        raise Unreadable
    return found
