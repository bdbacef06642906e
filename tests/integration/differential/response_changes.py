"""What is changed of a response, and how failures end: the changes in `rules`."""

from integration.differential.case import Case
from integration.differential.expectation import ERROR, Expectation
from integration.differential.request_changes import named

SERVER_ERROR = b"Internal Server Error"
# nginx writes these itself, before all others.
FIRST = (b"server", b"date", b"content-type", b"content-length", b"last-modified", b"location")
# Of these it keeps the first.
ONCE = frozenset(
    b"status content-type date last-modified etag server location refresh expires "
    b"x-accel-redirect x-accel-expires x-accel-limit-rate".split()
)


def app_error(case: Case, expected: Expectation, seen: Expectation) -> None:
    if case.order.fail == "before" or (case.order.fail in ("started", "middle") and _replaced(seen)):
        expected.fail(500, "app-error", case.method)


def bad_response(case: Case, expected: Expectation, seen: Expectation) -> None:
    if case.order.fail == "silent" or (case.tags & {"unfinished", "short", "long"} and _replaced(seen)):
        expected.fail(502, "bad-response", case.method)


def _replaced(seen: Expectation) -> bool:
    """Nothing had left yet: the client hears of it."""
    return bool(seen.values(ERROR))


def hop_by_hop(case: Case, expected: Expectation, seen: Expectation) -> None:
    own = named([value.decode("latin-1") for value in expected.values(b"connection")])
    expected.drop(lambda name: name.decode() in own)


def own_names(case: Case, expected: Expectation, seen: Expectation) -> None:
    expected.drop(lambda name: name.startswith(b"rabbitbal-"))


def connection(case: Case, expected: Expectation, seen: Expectation) -> None:
    closing = any(value.lower() == b"close" for value in seen.values(b"connection"))
    seen.drop(lambda name: name in (b"connection", b"transfer-encoding"))
    if case.follow and {expected.follow, seen.follow} <= {"", "answered", "closed"}:
        if seen.follow == "closed" and not closing:
            return
        expected.follow, expected.follows = seen.follow, seen.follows


def repeated(case: Case, expected: Expectation, seen: Expectation) -> None:
    met: set[bytes] = set()
    fields, expected.fields = expected.fields, []
    for name, value in fields:
        if name not in met & ONCE:
            expected.fields.append((name, value))
        met.add(name)


def empty_type(case: Case, expected: Expectation, seen: Expectation) -> None:
    expected.fields = [field for field in expected.fields if field != (b"content-type", b"")]


def no_content(case: Case, expected: Expectation, seen: Expectation) -> None:
    if expected.status in (204, 304):
        expected.drop(lambda name: name == b"content-length")


def length(case: Case, expected: Expectation, seen: Expectation) -> None:
    own = b"%d" % len(expected.body)
    if not expected.values(b"content-length") and seen.values(b"content-length") == [own] and case.method != b"HEAD":
        expected.fields.append((b"content-length", own))


def date(case: Case, expected: Expectation, seen: Expectation) -> None:
    if expected.status and not expected.values(ERROR) and not expected.values(b"date"):
        expected.fields += [(b"date", value) for value in seen.values(b"date")]


def order(case: Case, expected: Expectation, seen: Expectation) -> None:
    for side in (expected, seen):
        side.fields.sort(
            key=lambda field: (FIRST.index(field[0]) if field[0] in FIRST else len(FIRST), field[0] == b"via")
        )
