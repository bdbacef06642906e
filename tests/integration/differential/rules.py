"""The one table of what may differ between an application's own server and the same behind the proxy.

Each rule turns what was seen without the proxy into what must be seen behind it, and says why. What no rule turns must
be equal; a rule that turned nothing in the whole test is stale. docs/behavior.md says the same to people.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

from integration.differential import request_changes as request
from integration.differential import response_changes as response
from integration.differential.case import Case
from integration.differential.expectation import Expectation

Change = Callable[[Case, Expectation, Expectation], None]


@dataclass(frozen=True)
class Rule:
    """``change`` makes the expectation (second) of the case; it looks at what was seen (third) only where either of two
    outcomes is right."""

    name: str
    why: str
    change: Change


RULES = (
    Rule("Rabbitbal-* of responses", "the proxy's own names", response.own_names),
    Rule("own words", "what is not HTTP is refused with 400 `bad-request`, not in uvicorn's words", request.own_words),
    Rule("reserved", "paths below /_rabbitbal are not served", request.reserved),
    Rule("escapes", "nginx refuses a path with a % that is no escape, or %00", request.bad_escape),
    Rule("above the root", "nginx refuses a path whose .. lead above the root", request.above_the_root),
    Rule("repeats", "nginx refuses a repeat of a field that has one value by definition", request.repeated),
    Rule("empty Host", "nginx refuses an empty Host", request.empty_host),
    Rule("asterisk", "OPTIONS * is refused", request.asterisk),
    Rule("methods", "nginx refuses TRACE and CONNECT", request.methods),
    Rule("white space", "white space behind a value is no part of it; uvicorn leaves it there", request.white_space),
    Rule(
        "trailer",
        "trailers do not travel; uvicorn puts them among the header fields when they are early",
        request.trailer,
    ),
    Rule("some", "how much of a body comes at once is a matter of buffers", request.some),
    Rule("version", "a client's HTTP/1.0 becomes HTTP/1.1", request.version),
    Rule("hop-by-hop", "fields of one connection stay there", request.hop_by_hop),
    Rule("Rabbitbal-*", "the proxy's own names", request.own_names),
    Rule("Expect", "the proxy answers it", request.expect),
    Rule("chunked", "a chunked body gets a Content-Length, or is streamed without one", request.chunked),
    Rule("Host", "an absolute target replaces it; HTTP/1.0 without one gets localhost", request.host),
    Rule("forwarded", "X-Forwarded-* and Forwarded say what the proxy saw", request.forwarded),
    Rule("Via", "the proxy names itself, both ways", request.via),
    Rule("order", "Host and Content-Length come first", request.order),
    Rule("app-error", "an application that raises is told of, unless its response has left", response.app_error),
    Rule("bad-response", "so is one that breaks the protocol", response.bad_response),
    Rule("hop-by-hop of responses", "fields of one connection stay there", response.hop_by_hop),
    Rule("connection", "each hop keeps its connections as it likes, and says so", response.connection),
    Rule("204 and 304", "have no Content-Length", response.no_content),
    Rule(
        "repeats of responses", "nginx keeps the first of fields that have one value by definition", response.repeated
    ),
    Rule("empty Content-Type", "nginx drops it", response.empty_type),
    Rule("length", "a short response gets a Content-Length", response.length),
    Rule("Date", "is added", response.date),
    Rule("order of responses", "nginx writes some fields first", response.order),
    Rule("bare authority", "uvicorn fails on an absolute target without a path", request.bare_authority),
)


def expected(case: Case, direct: Expectation, seen: Expectation) -> tuple[Expectation, set[str]]:
    """What must be seen behind the proxy, and the rules that made it so. ``seen`` is brought into the same order."""
    found, used = deepcopy(direct), set()
    for rule in RULES:
        before = deepcopy((found, seen))
        rule.change(case, found, seen)
        if (found, seen) != before:
            used.add(rule.name)
    return found, used
