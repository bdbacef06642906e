"""What is refused on the way to the application, and what is changed of a request: the changes in `rules`."""

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from integration.differential.case import Case
from integration.differential.expectation import CLIENT, ERROR, Expectation, Pair, first

HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
FORWARDED = ("forwarded", "x-real-ip")


def named(values: list[str]) -> set[str]:
    """What Connection names for one hop only."""
    tokens = {token.strip().lower() for value in values for token in value.split(",")}
    return (tokens | HOP_BY_HOP) - {"host", "content-length", ""}


# --- what is refused before an application has it


def bad_escape(case: Case, expected: Expectation, seen: Expectation) -> None:
    path = _path(case)
    if case.method != b"CONNECT" and re.search(rb"%(?![0-9a-fA-F]{2})|%00", path):
        expected.refuse(400, "bad-request", case.method)


def above_the_root(case: Case, expected: Expectation, seen: Expectation) -> None:
    depth = 0
    for segment in unquote_to_bytes(_path(case)).split(b"/"):
        depth += {b"..": -1, b".": 0, b"": 0}.get(segment, 1)
        if depth < 0:
            expected.refuse(400, "bad-request", case.method)
            return


def _path(case: Case) -> bytes:
    path = re.sub(rb"^[a-z]+://[^/?#]*", b"", case.target)
    return re.split(rb"[?#]", path)[0]


UNIQUE = (
    b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"authorization",
    b"expect", b"content-range",
)  # fmt: skip


def repeated(case: Case, expected: Expectation, seen: Expectation) -> None:
    if any(len(case.values(name)) > 1 for name in UNIQUE):
        expected.refuse(400, "bad-request", case.method)


def empty_host(case: Case, expected: Expectation, seen: Expectation) -> None:
    if case.host and not case.host[1]:
        expected.refuse(400, "bad-request", case.method)


def reserved(case: Case, expected: Expectation, seen: Expectation) -> None:
    # As it was, and as nginx sees it.
    segments: list[bytes] = []
    for segment in unquote_to_bytes(_path(case)).split(b"/"):
        if segment == b"..":
            segments = segments[:-1]
        elif segment not in (b"", b"."):
            segments.append(segment)
    if segments[:1] == [b"_rabbitbal"] or _path(case).split(b"/")[1:2] == [b"_rabbitbal"]:
        expected.refuse(404, "reserved", case.method)


def methods(case: Case, expected: Expectation, seen: Expectation) -> None:
    if case.method == b"TRACE" or (case.method == b"CONNECT" and case.target.startswith(b"/")):
        expected.refuse(405, "bad-request", case.method)
    elif case.method == b"CONNECT":
        expected.refuse(400, "bad-request", case.method)


def asterisk(case: Case, expected: Expectation, seen: Expectation) -> None:
    if case.target == b"*":
        expected.refuse(400, "bad-request", case.method)


def own_words(case: Case, expected: Expectation, seen: Expectation) -> None:
    if expected.body == b"Invalid HTTP request received.":
        expected.refuse(400, "bad-request", case.method)


# --- the request


def bare_authority(case: Case, expected: Expectation, seen: Expectation) -> None:
    matched = re.fullmatch(rb"http://[^/?#]*(?:\?([^#]*))?(?:#.*)?", case.target)
    run = seen.runs[0] if len(seen.runs) == 1 else {}
    if matched and (run.get("path"), run.get("query")) == ("/", (matched[1] or b"").decode("latin-1")):
        expected.copy(seen)


def white_space(case: Case, expected: Expectation, seen: Expectation) -> None:
    for run in expected.runs:
        run["headers"] = [[name, value.rstrip(" \t")] for name, value in run["headers"]]


def trailer(case: Case, expected: Expectation, seen: Expectation) -> None:
    trailing = {name.lower().decode() for name, _ in case.trailer}
    for run in expected.runs:
        _keep(run, lambda name: name not in trailing)


def some(case: Case, expected: Expectation, seen: Expectation) -> None:
    if case.order.read == "some":
        for run in (*expected.runs, *seen.runs):
            for name in ("body", "size", "digest"):
                run.pop(name, None)


def version(case: Case, expected: Expectation, seen: Expectation) -> None:
    for run in expected.runs:
        run["http_version"] = "1.1"


def hop_by_hop(case: Case, expected: Expectation, seen: Expectation) -> None:
    for run in expected.runs:
        own = named([value for name, value in run["headers"] if name == "connection"])
        _keep(run, lambda name, own=own: name not in own)  # type: ignore[misc]


def own_names(case: Case, expected: Expectation, seen: Expectation) -> None:
    for run in expected.runs:
        _keep(run, lambda name: not name.startswith("rabbitbal-"))


def expect(case: Case, expected: Expectation, seen: Expectation) -> None:
    for run in expected.runs:
        _keep(run, lambda name: name != "expect")
    if case.values(b"expect") == [b"100-continue"] and {*expected.interim, *seen.interim} <= {100}:
        expected.interim = seen.interim


def chunked(case: Case, expected: Expectation, seen: Expectation) -> None:
    for run, its_run in zip(expected.runs, seen.runs, strict=False):
        length = first(its_run["headers"], "content-length")
        if case.chunks and length in (None, str(len(case.body))):
            run["headers"] += [] if length is None else [["content-length", length]]


def host(case: Case, expected: Expectation, seen: Expectation) -> None:
    absolute = re.match(rb"[a-z]+://([^/?#]*)", case.target)
    for run in expected.runs:
        if absolute:
            _keep(run, lambda name: name != "host")
            run["headers"].append(["host", absolute[1].decode()])
        elif first(run["headers"], "host") is None:
            run["headers"].append(["host", "localhost"])


def forwarded(case: Case, expected: Expectation, seen: Expectation) -> None:
    for run in expected.runs:
        _keep(run, lambda name: name not in FORWARDED and not name.startswith("x-forwarded-"))
        name = first(run["headers"], "host") or ""
        run["headers"] += [
            ["x-forwarded-for", CLIENT],
            ["x-forwarded-proto", "http"],
            ["x-forwarded-host", name],
            ["forwarded", f'for={CLIENT};host="{name}";proto=http'],
        ]


def via(case: Case, expected: Expectation, seen: Expectation) -> None:
    for run in expected.runs:
        hops = [value for name, value in run["headers"] if name == "via"]
        _keep(run, lambda name: name != "via")
        run["headers"].append(["via", ", ".join([*hops, "1.1 rabbitbal"])])
    if expected.status and not expected.values(ERROR):
        own = [*expected.values(b"via"), b"1.1 rabbitbal"]
        expected.drop(lambda name: name == b"via")
        expected.fields.append((b"via", b", ".join(own)))


def order(case: Case, expected: Expectation, seen: Expectation) -> None:
    for side in (expected, seen):
        for run in side.runs:
            run["headers"].sort(key=lambda pair: (pair[0] != "host", pair[0] != "content-length"))


def _keep(run: dict[str, list[Pair]], kept: Callable[[str], bool]) -> None:
    run["headers"] = [pair for pair in run["headers"] if kept(pair[0])]
