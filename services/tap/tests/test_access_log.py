"""The access log: one line for each ending, put together from copies that come in any order or not at all."""

from typing import Any

import pytest

from rabbitbal.runtime.settings import SettingsError, read
from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.observation import observe
from rabbitbal.tap.redaction import Redactor
from rabbitbal.tap.settings import Settings
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import Request, Response, encode_request, encode_response
from rabbitbal.wire.reasons import Reason

FIELDS = [
    (b"Host", b"example.org"),
    (b"X-Forwarded-For", b"203.0.113.7"),
    (b"User-Agent", b"curl"),
    (b"Content-Length", b"3"),
]
REQUEST = encode_request(Request("POST", b"/a?b=c", FIELDS, b"abc"))
RESPONSE = encode_response(Response(201, [], b"made it"))


def request(name: str = "c0ffee", attempt: int = 1) -> Envelope:
    return Envelope(
        Kind.REQUEST, name, "edge-1", reply_to="response.edge-1", attempt=attempt, route="default", sent=1_000
    )


def response(name: str = "c0ffee", reason: Reason | None = None) -> Envelope:
    return Envelope(
        Kind.RESPONSE, name, "worker-1", pool="reports", duration=12_345, sent=1_250, attempt=2, reason=reason
    )


def see(log: AccessLog, envelope: Envelope, payload: bytes) -> dict[str, Any] | None:
    return log.see(observe(0.0, envelope, payload, None, redelivered=False))


@pytest.fixture
def log() -> AccessLog:
    return AccessLog(3, Redactor())


def test_a_request_and_its_response_make_one_line(log: AccessLog) -> None:
    """With what either knows."""
    assert None is see(log, request(), REQUEST)
    assert see(log, response(), RESPONSE) == {
        "id": "c0ffee",
        "method": "POST",
        "target": "/a?b=c",
        "host": "example.org",
        "client": "203.0.113.7",
        "agent": "curl",
        "referer": None,
        "route": "default",
        "pool": "reports",
        "edge": "edge-1",
        "worker": "worker-1",
        "status": 201,
        "reason": None,
        "attempt": 2,
        "request_bytes": 3,
        "bytes": 7,
        "app_ms": 12.35,
        "queue_ms": 237.65,
        "total_ms": 250,
    }
    assert len(log) == 0


def test_an_ending_without_a_response_makes_a_line(log: AccessLog) -> None:
    """The edge tells of it: the status that the client got, and why."""
    see(log, request(), REQUEST)
    ended = Envelope(Kind.ENDED, "c0ffee", "edge-1", reason=Reason.QUEUE_TIMEOUT, status=504, sent=1_500)
    line = see(log, ended, b"")
    assert line is not None
    assert (
        line["status"],
        line["reason"],
        line["worker"],
        line["bytes"],
        line["total_ms"],
        line["target"],
    ) == (504, "queue-timeout", None, 0, 500, "/a?b=c")


def test_a_request_that_was_sent_again_is_still_one(log: AccessLog) -> None:
    """Its time counts from the first."""
    see(log, request(), REQUEST)
    see(log, request(attempt=2), REQUEST)
    assert len(log) == 1
    line = see(log, response(), RESPONSE)
    assert line is not None
    assert (line["total_ms"], line["attempt"]) == (250, 2)


def test_an_ending_without_its_request_is_marked(log: AccessLog) -> None:
    """From before this tap's time, or a second answer."""
    first = see(log, response(), RESPONSE)
    see(log, request(), REQUEST)
    see(log, response(), RESPONSE)
    second = see(log, response(), RESPONSE)
    for line in (first, second):
        assert line is not None
        assert (line["unmatched"], line["status"], line["worker"]) == (True, 201, "worker-1")


def test_other_messages_make_no_line(log: AccessLog) -> None:
    """Claims and notices are no endings."""
    see(log, request(), REQUEST)
    for kind in (Kind.CLAIM, Kind.REDELIVERED, Kind.CANCEL):
        assert None is see(log, Envelope(kind, "c0ffee", "worker-1"), b"")
    assert len(log) == 1


def test_the_oldest_open_request_is_forgotten_when_there_are_too_many(log: AccessLog) -> None:
    """And counted: memory is bounded whatever never ends."""
    for number in range(5):
        see(log, request(str(number)), REQUEST)
    assert (len(log), log.forgotten) == (3, 2)
    forgotten, kept = see(log, response("1"), RESPONSE), see(log, response("2"), RESPONSE)
    assert forgotten is not None
    assert kept is not None
    assert ("unmatched" in forgotten, "unmatched" in kept) == (True, False)


def test_an_open_request_does_not_hold_its_body(log: AccessLog) -> None:
    """Fifty thousand of them, of megabytes each, would be the end of the tap."""
    large = encode_request(Request("POST", b"/", [], b"x" * 1_000_000))
    see(log, request(), large)
    (known,) = log._open.values()
    assert len(repr(known)) < 1000
    line = see(log, response(), RESPONSE)
    assert line is not None
    assert line["request_bytes"] == 1_000_000


STREAMED = encode_response(Response(200, [(b"Content-Type", b"text/plain")]), more=True)


def head(name: str = "c0ffee", worker: str = "worker-1", attempt: int = 1) -> Envelope:
    return Envelope(Kind.RESPONSE, name, worker, pool="reports", duration=2_500, sent=1_100, attempt=attempt, more=True)


def ended(name: str = "c0ffee", reason: Reason | None = None, attempt: int = 1, status: int = 200) -> Envelope:
    return Envelope(
        Kind.ENDED,
        name,
        "edge-1",
        attempt=attempt,
        reason=reason,
        status=status,
        size=70_000,
        duration=8_900_000,
        sent=9_900,
    )


def test_a_streamed_response_makes_its_line_when_it_has_ended(log: AccessLog) -> None:
    """The head tells who made it, the edge what became of it."""
    see(log, request(), REQUEST)
    assert None is see(log, head(), STREAMED)
    assert len(log) == 1
    assert see(log, ended(), b"") == {
        "id": "c0ffee",
        "method": "POST",
        "target": "/a?b=c",
        "host": "example.org",
        "client": "203.0.113.7",
        "agent": "curl",
        "referer": None,
        "route": "default",
        "pool": "reports",
        "edge": "edge-1",
        "worker": "worker-1",
        "status": 200,
        "reason": None,
        "attempt": 1,
        "request_bytes": 3,
        "bytes": 70_000,
        "app_ms": 2.5,
        "queue_ms": 97.5,
        "total_ms": 8_900,
    }
    assert len(log) == 0


def test_the_first_bytes_in_the_head_are_no_ending(log: AccessLog) -> None:
    """What travels along with the head is counted by the edge, too."""
    see(log, request(), REQUEST)
    assert None is see(log, head(), encode_response(Response(200, [], b"first"), more=True))
    line = see(log, ended(), b"")
    assert line is not None
    assert line["bytes"] == 70_000


@pytest.mark.parametrize("reason", [Reason.WORKER_LOST, Reason.CLIENT_GONE, Reason.APP_ERROR])
def test_a_stream_that_broke_says_why(log: AccessLog, reason: Reason) -> None:
    """With the status that the client saw, and the worker that had it."""
    see(log, request(), REQUEST)
    see(log, head(), STREAMED)
    line = see(log, ended(reason=reason), b"")
    assert line is not None
    assert (line["status"], line["reason"], line["worker"], line["bytes"]) == (200, reason, "worker-1", 70_000)


def test_a_head_of_another_attempt_is_not_the_one_that_ended(log: AccessLog) -> None:
    """A worker that was given up may still begin to answer, before or after the one that has the request now."""
    see(log, request(), REQUEST)
    see(log, head(worker="worker-2", attempt=2), STREAMED)
    see(log, head(worker="worker-1", attempt=1), STREAMED)
    line = see(log, ended(attempt=2), b"")
    assert line is not None
    assert (line["worker"], line["attempt"]) == ("worker-2", 2)
    see(log, request(), REQUEST)
    see(log, head(worker="worker-1", attempt=1), STREAMED)
    line = see(log, ended(attempt=2, reason=Reason.WORKER_TIMEOUT, status=504), b"")
    assert line is not None
    assert (line["worker"], line["status"], line["pool"], "app_ms" in line) == (None, 504, None, False)


def test_a_head_of_an_unknown_request_makes_no_line(log: AccessLog) -> None:
    """Nor is it remembered: the edge may have ended it long ago. The ending has its line."""
    assert None is see(log, head(), STREAMED)
    assert len(log) == 0
    line = see(log, ended(), b"")
    assert line is not None
    assert (line["unmatched"], line["status"], line["bytes"], line["worker"]) == (True, 200, 70_000, None)


def test_a_websocket_is_one_line_at_its_end(log: AccessLog) -> None:
    """Status 101, and how much the client was sent."""
    asked = Envelope(Kind.REQUEST, "c0ffee", "edge-1", reply_to="r", route="default", sent=1_000, upgrade="websocket")
    see(log, asked, encode_request(Request("GET", b"/chat", FIELDS[:1])))
    assert None is see(log, head(), encode_response(Response(101), more=True))
    line = see(log, ended(status=101), b"")
    assert line is not None
    assert (line["status"], line["upgrade"], line["bytes"], line["reason"]) == (101, "websocket", 70_000, None)


@pytest.mark.parametrize(("fields", "declared"), [([(b"Content-Length", b"1000000")], 1_000_000), ([], None)])
def test_a_body_that_follows_counts_as_declared(
    log: AccessLog, fields: list[tuple[bytes, bytes]], declared: int | None
) -> None:
    """Its bytes do not come here. A chunked body declares none."""
    upload = Envelope(Kind.REQUEST, "c0ffee", "edge-1", reply_to="r", route="default", sent=1_000, more=True)
    see(log, upload, encode_request(Request("PUT", b"/", fields, b"first"), more=True))
    line = see(log, response(), RESPONSE)
    assert line is not None
    assert (line["request_bytes"], line["status"]) == (declared, 201)


def test_streams_count_among_the_open_requests(log: AccessLog) -> None:
    """Their number is bounded, and what is kept of each: heads of responses are not."""
    large = encode_response(Response(200, [(b"X-Large", b"x" * 30_000)]), more=True)
    for number in range(5):
        see(log, request(str(number)), REQUEST)
        see(log, head(str(number)), large)
    assert (len(log), log.forgotten) == (3, 2)
    assert all(len(repr(known)) < 1500 for known in log._open.values())


@pytest.mark.parametrize("envelope", [request(), response(), head()])
def test_a_payload_that_is_not_http_is_refused(log: AccessLog, envelope: Envelope) -> None:
    """The reader logs it; nothing is remembered, and there is no line."""
    seen = observe(0.0, envelope, b"nonsense", None, redelivered=False)
    assert seen.error is not None
    assert None is log.see(seen)
    assert len(log) == 0


def test_long_and_strange_values_are_safe_to_log(log: AccessLog) -> None:
    """Cut at a thousand bytes, and text whatever the bytes are."""
    see(log, request(), encode_request(Request("GET", b"/" + b"a" * 5000, [(b"Host", b"\xff\xfe")])))
    line = see(log, response(), RESPONSE)
    assert line is not None
    assert (len(line["target"]), line["host"]) == (1000, "\ufffd\ufffd")


def test_a_line_without_clocks_has_no_duration(log: AccessLog) -> None:
    """A worker in another language may leave the field out."""
    see(log, request(), REQUEST)
    line = see(log, Envelope(Kind.RESPONSE, "c0ffee", "worker-1"), RESPONSE)
    assert line is not None
    assert (line["total_ms"], "app_ms" in line) == (None, False)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RABBITBAL_OPEN_LIMIT", "0"),
        ("RABBITBAL_TAP_PREFETCH", "0"),
        ("RABBITBAL_TAP_PREFETCH", "10001"),
        ("RABBITBAL_BROKER_URL", "x"),
        ("RABBITBAL_LOG_LEVEL", "x"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, text: str) -> None:
    """One line for the operator."""
    with pytest.raises(SettingsError, match=variable):
        read(Settings, {variable: text})


def test_an_ending_that_brings_its_request_along_is_a_whole_line() -> None:
    """The request came to no pool, so the tap has seen no copy of it."""
    log = AccessLog(10, Redactor())
    ended = Envelope(Kind.ENDED, "c0ffee", "edge-1", reason=Reason.UNROUTABLE, status=503, sent=1_500)
    line = see(log, ended, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert line is not None
    assert (line["method"], line["target"], line["status"], line["reason"]) == ("GET", "/a", 503, Reason.UNROUTABLE)
    assert "unmatched" not in line
    assert len(log) == 0


def test_a_copy_says_which_it_is(log: AccessLog) -> None:
    """Its leg and group, and the partition; other lines have no such fields. What is too long is cut."""
    asked: dict[str, Any] = {"reply_to": "r", "route": "default", "sent": 1_000}
    see(log, Envelope(Kind.REQUEST, "a", "edge-1", leg=Leg.FIRST, group="f" * 32, partition="7", **asked), REQUEST)
    see(log, Envelope(Kind.REQUEST, "b", "edge-1", leg=Leg.ALL, group="f" * 500, partition="7" * 500, **asked), REQUEST)
    short, long = see(log, response("a"), RESPONSE), see(log, response("b"), RESPONSE)
    assert short is not None
    assert (short["leg"], short["group"], short["partition"]) == ("first", "f" * 32, "7")
    assert long is not None
    assert (len(long["group"]), len(long["partition"])) == (100, 100)


def test_a_copy_that_lost_the_race_says_so(log: AccessLog) -> None:
    """It has a line of its own; what its worker answers all the same is no second ending."""
    see(log, Envelope(Kind.REQUEST, "a", "edge-1", reply_to="r", route="r", leg=Leg.HEDGE, group="f" * 32), REQUEST)
    lost = Envelope(Kind.ENDED, "a", "edge-1", reason=Reason.SUPERSEDED, status=499, leg=Leg.HEDGE, group="f" * 32)
    line = see(log, lost, b"")
    assert line is not None
    assert (line["leg"], line["reason"], line["status"]) == ("hedge", "superseded", 499)
    late = see(log, response("a"), RESPONSE)
    assert late is not None
    assert late["unmatched"] is True


@pytest.mark.parametrize(
    ("sent", "duration", "expected"),
    [(1_000, 12_345, 0.0), (900, 0, 0.0), (1_005, 4_000, 1.0), (1_030, 5_250, 24.75)],
)
def test_the_time_in_the_queue_is_never_negative(log: AccessLog, sent: int, duration: int, expected: float) -> None:
    """Two machines' clocks differ, and one counts milliseconds where the other counts microseconds."""
    see(log, request(), REQUEST)
    line = see(log, Envelope(Kind.RESPONSE, "c0ffee", "worker-1", duration=duration, sent=sent), RESPONSE)
    assert line is not None
    assert line["queue_ms"] == expected


@pytest.mark.parametrize(
    "ending",
    [
        Envelope(Kind.RESPONSE, "c0ffee", "worker-1", sent=1_250),
        Envelope(Kind.RESPONSE, "c0ffee", "worker-1", duration=1_000),
        Envelope(Kind.ENDED, "c0ffee", "edge-1", reason=Reason.QUEUE_TIMEOUT, status=504, sent=1_500, duration=500_000),
    ],
    ids=["no time of the application", "no clock", "no worker"],
)
def test_the_time_in_the_queue_is_not_guessed(log: AccessLog, ending: Envelope) -> None:
    see(log, request(), REQUEST)
    line = see(log, ending, RESPONSE if ending.kind is Kind.RESPONSE else b"")
    assert line is not None
    assert "queue_ms" not in line


def test_secrets_are_taken_out_before_anything_is_remembered(log: AccessLog) -> None:
    """Of the target and the referer; what a user adds of the other fields, too."""
    fields = [
        (b"Referer", b"https://a.example/?session=hidden1&x=1"),
        (b"Cookie", b"a=hidden2"),
        (b"User-Agent", b"me"),
    ]
    asked = encode_request(Request("GET", b"/in?token=hidden3&b=c", [*fields, (b"Authorization", b"Bearer hidden4")]))
    see(log, request(), asked)
    assert "hidden" not in repr(log._open)
    line = see(log, response(), RESPONSE)
    assert line is not None
    assert (line["target"], line["referer"]) == (
        "/in?token=[redacted]&b=c",
        "https://a.example/?session=[redacted]&x=1",
    )
    strict = AccessLog(3, Redactor("+user-agent"))
    see(strict, request(), asked)
    line = see(strict, response(), RESPONSE)
    assert line is not None
    assert line["agent"] == "[redacted]"


def test_a_secret_that_a_long_target_ends_in_is_not_cut_open(log: AccessLog) -> None:
    """It is taken out first, then the text is cut."""
    see(log, request(), encode_request(Request("GET", b"/".ljust(980, b"a") + b"?token=" + b"hidden" * 100)))
    line = see(log, response(), RESPONSE)
    assert line is not None
    assert "hidden" not in line["target"]


def test_of_a_repeated_field_the_first_is_said(log: AccessLog) -> None:
    see(log, request(), encode_request(Request("GET", b"/", [(b"user-agent", b"one"), (b"User-Agent", b"two")])))
    line = see(log, response(), RESPONSE)
    assert line is not None
    assert line["agent"] == "one"


def test_an_ending_that_the_edge_made_names_the_worker_that_had_claimed_the_request(log: AccessLog) -> None:
    """Whose time was up. A claim of another attempt, or one behind the ending, names nobody."""
    for attempt, expected in ((2, "worker-2"), (3, None)):
        see(log, request(), REQUEST)
        for number in (2, 1):
            see(log, Envelope(Kind.CLAIM, "c0ffee", f"worker-{number}", attempt=number, sent=1_100), b"")
        line = see(log, ended(attempt=attempt, reason=Reason.WORKER_TIMEOUT, status=504), b"")
        see(log, Envelope(Kind.CLAIM, "c0ffee", "worker-9", attempt=3), b"")
        assert line is not None
        assert (line["worker"], line["attempt"], line["reason"]) == (expected, attempt, "worker-timeout")
    assert len(log) == 0
