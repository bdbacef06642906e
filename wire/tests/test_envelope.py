"""Envelopes there and back, and the envelopes that nobody of ours sent."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from rabbitbal.wire.envelope import VERSION, Envelope, Kind, Leg, parse_envelope
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.reasons import Reason

ID = "7f9c24e8b1d04a6e93c05d7be1f2a864"
GROUP = "5e0c7d1b2a394857a6b5c4d3e2f10918"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

REQUEST = Envelope(
    Kind.REQUEST,
    ID,
    "edge-1",
    reply_to="response.edge-1",
    attempt=2,
    deadline=1_767_225_600_000,
    repeatable=False,
    route="default",
    traceparent=TRACE,
    caller_span="00f067aa0ba902b7",
    sent=1_767_225_570_000,
    leg=Leg.HEDGE,
    group=GROUP,
    partition="7",
)
ENVELOPES = {
    Kind.REQUEST: REQUEST,
    Kind.RESPONSE: Envelope(
        Kind.RESPONSE,
        ID,
        "worker-1",
        attempt=2,
        pool="default",
        reason=Reason.APP_ERROR,
        duration=1234,
        traceparent=TRACE,
    ),
    Kind.CLAIM: Envelope(Kind.CLAIM, ID, "worker-1", attempt=3, pool="default"),
    Kind.REDELIVERED: Envelope(Kind.REDELIVERED, ID, "worker-1", pool="default"),
    Kind.CANCEL: Envelope(Kind.CANCEL, ID, "edge-1"),
    Kind.ENDED: Envelope(
        Kind.ENDED,
        ID,
        "edge-1",
        route="default",
        reason=Reason.QUEUE_TIMEOUT,
        status=504,
        duration=30_000_000,
        size=0,
        digest="ab",
    ),
    Kind.BODY: Envelope(Kind.BODY, ID, "worker-1", attempt=2, sequence=7, more=True),
    Kind.CREDIT: Envelope(Kind.CREDIT, ID, "edge-1", credit=65536),
    Kind.PROBE: Envelope(Kind.PROBE, "probe", "edge-1"),
    Kind.NOTICE: Envelope(Kind.NOTICE, "notice", "worker-1"),
    Kind.FIGURES: Envelope(Kind.FIGURES, "figures", "edge-1", sent=1_767_225_570_000),
    Kind.VERDICT: Envelope(Kind.VERDICT, "verdict", "tap-1", sent=1_767_225_570_000),
    Kind.DRAIN: Envelope(Kind.DRAIN, "order", "operator-1"),
    Kind.RESUME: Envelope(Kind.RESUME, "order", "operator-1"),
}
NEEDED: dict[Kind, dict[str, Any]] = {Kind.BODY: {"sequence": 1, "more": False}, Kind.CREDIT: {"credit": 0}}


def parsed(envelope: Envelope, **changed: Any) -> Envelope:
    """What the reader makes of the envelope; a header that is changed to ... is left out."""
    arguments: dict[str, Any] = {
        "kind": envelope.kind.value,
        "correlation_id": envelope.correlation_id,
        "app_id": envelope.app_id,
        "reply_to": envelope.reply_to,
    }
    headers = envelope.headers()
    for name, value in changed.items():
        (arguments if name in arguments else headers)[name] = value
    return parse_envelope(**arguments, headers={name: value for name, value in headers.items() if value is not ...})


def test_every_kind_is_tried_here() -> None:
    assert set(ENVELOPES) == set(Kind)


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES.keys())
def test_an_envelope_survives_the_journey(envelope: Envelope) -> None:
    assert parsed(envelope) == envelope


@pytest.mark.parametrize("leg", Leg)
def test_every_leg_survives_the_journey(leg: Leg) -> None:
    assert parsed(replace(REQUEST, leg=leg)) == replace(REQUEST, leg=leg)


def test_a_copy_names_its_group() -> None:
    """A leg without one is of nothing; a group alone may stand, and nobody reads it."""
    with pytest.raises(WireError, match="group"):
        parsed(REQUEST, group=...)
    assert parsed(REQUEST, leg=...) == replace(REQUEST, leg=None)


def test_what_properties_carry_is_no_header_and_is_not_read_back() -> None:
    envelope = replace(REQUEST, persistent=True, user_id="edge")
    assert envelope.headers() == REQUEST.headers()
    assert parsed(envelope) == REQUEST


@pytest.mark.parametrize("kind", Kind)
def test_every_reason_survives_the_journey(kind: Kind) -> None:
    for reason in Reason:
        envelope = replace(ENVELOPES[kind], reason=reason)
        assert parsed(envelope) == envelope


def test_the_expiration_is_for_the_broker_and_is_not_read_back() -> None:
    envelope = replace(REQUEST, expiration=30_000)
    assert "expiration" not in envelope.headers()
    assert parsed(envelope) == REQUEST


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES.keys())
def test_headers_are_plain_values_and_those_without_one_are_not_sent(envelope: Envelope) -> None:
    headers = envelope.headers()
    assert headers["version"] == VERSION
    # Exactly these types: a client library would not know what to do with an enumeration.
    assert {type(value) for value in headers.values()} <= {int, str, bool}
    assert all(value is not None for value in headers.values())


def test_false_and_nought_are_values() -> None:
    headers = replace(REQUEST, duration=0).headers()
    assert headers["repeatable"] is False
    assert headers["duration"] == 0


def test_unknown_headers_are_ignored() -> None:
    assert parsed(REQUEST, x_new={"nested": [1, {}]}, expiration="1", correlation=5) == REQUEST


NESTED: dict[str, Any] = {"a": [{"b": [None, b"\xff"] * 10}]}
NOT_INTEGERS = [True, False, "1", b"1", 1.0, Decimal(1), [1], NESTED]
NOT_STRINGS = [b"default", 1, True, ["default"], NESTED]

NUMBERS = ("status", "duration", "sent", "sequence", "credit", "size")
HOSTILE: list[tuple[str, list[Any]]] = [
    (
        "kind",
        [
            None,
            "",
            "Request",
            "request ",
            "bodies",
            "body",
            "credit",
            "x" * 100_000,
            b"request",
            1,
            ["request"],
            NESTED,
        ],
    ),
    ("correlation_id", [None, ""]),
    ("app_id", [None, ""]),
    ("reply_to", [None, ""]),
    ("version", [..., None, 0, 2, -1, 2**63, 10**5000, *NOT_INTEGERS]),
    ("attempt", [..., None, 0, -1, 1001, 2**63, 10**5000, *NOT_INTEGERS]),
    ("deadline", [..., None, *NOT_INTEGERS]),
    ("repeatable", [..., None, 0, 1, "true", b"", [True], NESTED]),
    ("route", [..., None, *NOT_STRINGS]),
    ("pool", NOT_STRINGS),
    ("traceparent", NOT_STRINGS),
    ("caller_span", NOT_STRINGS),
    ("leg", ["", "Hedge", "second", "x" * 100_000, b"hedge", 0, 10**5000, True, ["hedge"], NESTED]),
    ("group", [..., None, *NOT_STRINGS]),
    ("partition", NOT_STRINGS),
    ("digest", NOT_STRINGS),
    *((name, [-1, -(2**63), 2**63, 10**5000, *NOT_INTEGERS]) for name in NUMBERS),
    ("more", [0, 1, "true", b"", [True], NESTED]),
    ("upgrade", ["", "h2c", "WebSocket", *NOT_STRINGS]),
    ("reason", ["", "Poison", "no-such-reason", "x" * 100_000, b"poison", 0, 10**5000, True, ["poison"], NESTED]),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, hostile in HOSTILE for value in hostile],
    ids=[f"{name}-{number}" for name, hostile in HOSTILE for number in range(len(hostile))],
)
def test_a_hostile_envelope_is_refused(name: str, value: Any) -> None:
    with pytest.raises(WireError) as caught:
        parsed(REQUEST, **{name: value})
    assert len(str(caught.value)) < 200
    assert name == "kind" or name in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.REQUEST])
def test_only_a_request_needs_the_headers_of_a_request(kind: Kind) -> None:
    needed = NEEDED.get(kind, {})
    bare = {"version": VERSION, "attempt": 1, **needed}
    envelope = parse_envelope(kind=kind.value, correlation_id=ID, app_id="a", reply_to=None, headers=bare)
    assert envelope == Envelope(kind, ID, "a", **needed)
    for name in needed:
        with pytest.raises(WireError, match=name):
            parse_envelope(kind=kind.value, correlation_id=ID, app_id="a", reply_to=None, headers={**bare, name: None})


def test_huge_values_of_the_right_type_are_only_values() -> None:
    huge = parsed(REQUEST, deadline=2**63 - 1, duration=0, credit=2**63 - 1, route="r" * 1_000_000, attempt=1000)
    assert huge.deadline == 2**63 - 1
    assert huge.route == "r" * 1_000_000


def test_no_header_at_all_is_a_missing_version() -> None:
    with pytest.raises(WireError, match="version"):
        parse_envelope(kind="claim", correlation_id=ID, app_id="a", reply_to=None, headers={})
