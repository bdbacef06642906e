"""Spans: which requests make them, their ids and parents, their times by clocks that differ, and what they say."""

from dataclasses import replace
from typing import Any

import pytest

from rabbitbal.tap.observation import observe
from rabbitbal.tap.redaction import Redactor
from rabbitbal.tap.traces import Role, Span, Traces
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import Request, Response, encode_request, encode_response
from rabbitbal.wire.reasons import Reason

TRACE, CALLER, APP = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
FIELDS = [
    (b"Host", b"shop.test:8080"),
    (b"X-Forwarded-For", b"203.0.113.7, 10.0.0.1"),
    (b"X-Forwarded-Proto", b"https"),
]
PAYLOAD = encode_request(Request("GET", b"/a;jsessionid=1/b?token=secret", FIELDS, b""))
MS = 1_000_000

REQUEST = Envelope(
    Kind.REQUEST,
    "c0ffee",
    "edge-1",
    reply_to="response.edge-1",
    route="shop",
    sent=1_000,
    traceparent=f"00-{TRACE}-{APP}-01",
    caller_span=CALLER,
)
RESPONSE = Envelope(Kind.RESPONSE, "c0ffee", "worker-1", pool="north", sent=1_250, duration=100_000)
ENDED = Envelope(Kind.ENDED, "c0ffee", "edge-1", sent=1_500, duration=400_000, status=504, reason=Reason.WORKER_TIMEOUT)
CLAIM = Envelope(Kind.CLAIM, "c0ffee", "worker-1", sent=1_200, duration=50_000)


class Bench:
    """A tap with nothing but traces, and what they have emitted."""

    def __init__(self, limit: int = 10) -> None:
        self.spans: list[Span] = []
        self.traces = Traces(self.spans.append, limit, Redactor())

    def see(self, envelope: Envelope, payload: bytes = b"", *, redelivered: bool = False) -> None:
        self.traces.see(observe(0.0, envelope, payload, None, redelivered=redelivered))

    def request(self, **other: Any) -> None:
        self.see(replace(REQUEST, **other), PAYLOAD)

    def answer(self, status: int = 200, **other: Any) -> None:
        more = bool(other.get("more"))
        self.see(replace(RESPONSE, **other), encode_response(Response(status, [], b""), more=more))

    def by_name(self) -> dict[str, Span]:
        assert len({span.name for span in self.spans}) == len(self.spans)
        return {span.name: span for span in self.spans}

    def times(self) -> dict[str, tuple[float, float]]:
        """In milliseconds."""
        return {span.name: (span.start / MS, span.end / MS) for span in self.spans}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_request_makes_three_spans_in_one_trace(bench: Bench) -> None:
    """The caller's span is above the request's, and that above the others. The application's own hang below `app`."""
    bench.request()
    bench.answer()
    spans = bench.by_name()
    assert {span.trace for span in spans.values()} == {int(TRACE, 16)}
    request, queue, app = spans["request"], spans["queue"], spans["app"]
    assert (request.parent, queue.parent, app.parent) == (int(CALLER, 16), request.id, request.id)
    assert (app.id, request.role, queue.role) == (int(APP, 16), Role.SERVER, Role.INTERNAL)
    assert len({request.id, queue.id, app.id, int(CALLER, 16)}) == 4
    assert bench.times() == {"request": (1000, 1250), "queue": (1000, 1150), "app": (1150, 1250)}
    assert len(bench.traces) == 0


def test_a_span_says_what_the_conventions_name_and_who_did_it(bench: Bench) -> None:
    """What must not be stored has been taken out of the path; the query is not told at all."""
    bench.request()
    bench.answer(201, attempt=2)
    spans = bench.by_name()
    notes = {
        "rabbitbal.edge": "edge-1",
        "rabbitbal.id": "c0ffee",
        "rabbitbal.route": "shop",
        "rabbitbal.attempt": 2,
        "rabbitbal.worker": "worker-1",
        "rabbitbal.pool": "north",
    }
    assert spans["app"].attributes == spans["queue"].attributes == notes
    assert spans["request"].attributes == notes | {
        "http.request.method": "GET",
        "http.response.status_code": 201,
        "url.scheme": "https",
        "url.path": "/a;jsessionid=[redacted]/b",
        "server.address": "shop.test",
        "server.port": 8080,
        "client.address": "203.0.113.7",
    }


def test_a_trace_that_begins_at_the_edge_has_a_root(bench: Bench) -> None:
    """Zeros are no span."""
    bench.request(caller_span="0" * 16)
    bench.answer()
    assert bench.by_name()["request"].parent is None


@pytest.mark.parametrize(
    "other",
    [
        {"traceparent": f"00-{TRACE}-{APP}-00"},
        {"traceparent": f"00-{TRACE}-{APP}-02"},
        {"caller_span": None},
        {"traceparent": None},
        {"traceparent": "rubbish"},
        {"traceparent": f"00-{'0' * 32}-{APP}-01"},
        {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
        {"caller_span": "x" * 100_000},
        {"sent": None},
        {"sent": (1 << 63) - 1},
    ],
)
def test_what_is_not_sampled_or_makes_no_sense_makes_no_spans(bench: Bench, other: dict[str, Any]) -> None:
    """Without the caller's span the edge has no part in the trace: the id would be somebody else's span."""
    bench.request(**other)
    bench.answer()
    assert bench.spans == []


@pytest.mark.parametrize("behind", [0, 1, 5_000])
def test_a_worker_whose_clock_is_behind_makes_no_negative_times(bench: Bench, behind: int) -> None:
    """Its run is moved to the request's start, with its length as it was, and the shift is told."""
    bench.request()
    bench.answer(sent=1_100 - behind)
    assert bench.times() == {"request": (1000, 1100), "queue": (1000, 1000), "app": (1000, 1100)}
    shift = bench.by_name()["app"].attributes.get("rabbitbal.clock_shift_ms")
    assert shift == (behind or None)


def test_a_worker_whose_clock_is_ahead_does_not_run_behind_the_end(bench: Bench) -> None:
    """The edge knows when it ended."""
    bench.request()
    bench.see(replace(CLAIM, sent=9_000))
    bench.see(ENDED)
    assert bench.times() == {"request": (1000, 1400), "queue": (1000, 1400), "app": (1400, 1400)}


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (200, None, None),
        (404, None, None),
        (503, None, "503"),
        (500, Reason.APP_ERROR, "app-error"),
    ],
)
def test_an_error_is_the_servers(bench: Bench, status: int, reason: Reason | None, error: str | None) -> None:
    """By the conventions: 5xx. The time in the queue did not fail."""
    bench.request()
    bench.answer(status, reason=reason)
    spans = bench.by_name()
    assert [spans[name].error for name in ("request", "app", "queue")] == [error, error, None]
    assert spans["request"].attributes.get("error.type") == error


def test_a_request_that_nobody_took_has_no_run(bench: Bench) -> None:
    """It waited, and that failed."""
    bench.request()
    bench.see(replace(ENDED, reason=Reason.QUEUE_TIMEOUT))
    assert bench.times() == {"request": (1000, 1400), "queue": (1000, 1400)}
    assert {span.error for span in bench.spans} == {"queue-timeout"}


def test_a_run_that_was_claimed_and_never_answered_is_told(bench: Bench) -> None:
    """From its beginning, as the claim says, to the end that the edge tells."""
    bench.request()
    bench.see(CLAIM)
    bench.see(ENDED)
    assert bench.times() == {"request": (1000, 1400), "queue": (1000, 1150), "app": (1150, 1400)}
    assert bench.by_name()["request"].attributes["rabbitbal.reason"] == "worker-timeout"


def test_a_claim_of_an_earlier_attempt_is_forgotten(bench: Bench) -> None:
    """That run was lost; the next one waits in the queue again."""
    bench.request()
    bench.see(CLAIM)
    bench.request(attempt=2)
    bench.see(CLAIM)
    bench.see(replace(ENDED, attempt=2))
    assert set(bench.by_name()) == {"request", "queue"}


def test_a_streamed_response_ends_when_the_edge_says_so(bench: Bench) -> None:
    """Its head makes no spans, and its worker is the one that sent the head."""
    bench.request()
    bench.answer(more=True, duration=20_000, sent=1_050)
    assert bench.spans == []
    bench.see(replace(ENDED, status=200, reason=None, duration=700_000))
    assert bench.times() == {"request": (1000, 1700), "queue": (1000, 1030), "app": (1030, 1700)}
    assert bench.by_name()["request"].attributes["rabbitbal.worker"] == "worker-1"


def test_a_request_that_came_to_no_pool_has_one_span(bench: Bench) -> None:
    """The ending brings it along, and says when it began."""
    ended = replace(ENDED, reason=Reason.UNROUTABLE, status=503, traceparent=REQUEST.traceparent, caller_span=CALLER)
    bench.see(ended, PAYLOAD)
    assert bench.times() == {"request": (1100, 1500)}
    assert bench.by_name()["request"].error == "unroutable"


def test_a_copy_says_what_it_is_and_one_that_lost_is_no_error(bench: Bench) -> None:
    """Each copy has spans of its own, and the name of the group in common."""
    bench.request(leg=Leg.FIRST, group="group-1")
    bench.see(replace(ENDED, status=499, reason=Reason.SUPERSEDED, leg=Leg.FIRST, group="group-1"))
    request = bench.by_name()["request"]
    assert (request.attributes["rabbitbal.leg"], request.attributes["rabbitbal.group"]) == ("first", "group-1")
    assert request.error is None


def test_messages_that_are_read_twice_make_the_same_spans(bench: Bench) -> None:
    """As after a crash of the tap: a collector can tell that they are the same."""
    for redelivered in (False, True):
        bench.see(REQUEST, PAYLOAD, redelivered=redelivered)
        bench.answer()
    assert bench.spans[:3] == bench.spans[3:]


def test_open_requests_are_bounded() -> None:
    """The oldest is forgotten, and counted."""
    bench = Bench(limit=2)
    for number in range(3):
        bench.request(correlation_id=f"id-{number}")
    assert (len(bench.traces), bench.traces.forgotten) == (2, 1)
    bench.answer(correlation_id="id-0")
    assert bench.spans == []


@pytest.mark.parametrize("huge", [(1 << 63) - 1, 0])
def test_times_that_cannot_be_stay_in_bounds(bench: Bench, huge: int) -> None:
    """A span's times are 64-bit numbers, and one that is not would take the whole batch with it."""
    bench.request()
    bench.answer(sent=huge, duration=huge)
    bench.request()
    bench.see(replace(ENDED, duration=huge))
    assert bench.spans
    assert all(0 <= span.start <= span.end < 1 << 63 for span in bench.spans)


def test_an_unknown_method_is_named_beside(bench: Bench) -> None:
    """The conventions want few values of the method."""
    payload = encode_request(Request("PROPFIND", b"/", [(b"Host", b"[::1]:80")], b""))
    bench.see(REQUEST, payload)
    bench.answer()
    said = bench.by_name()["request"].attributes
    assert (said["http.request.method"], said["http.request.method_original"]) == ("_OTHER", "PROPFIND")
    assert (said["server.address"], said["server.port"]) == ("[::1]", 80)
