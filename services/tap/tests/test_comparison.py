"""Shadows compared with their primaries: in any order, whatever became of them, in bounded memory."""

from hashlib import sha256
from itertools import permutations
from typing import Any

import pytest

from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.comparison import Comparison
from rabbitbal.tap.observation import observe
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import Request, Response, encode_request, encode_response
from rabbitbal.wire.reasons import Reason

GROUP = "f" * 32
REQUEST = encode_request(Request("GET", b"/a?b=c", [(b"Host", b"example.org")]))


def line(leg: str | None, name: str = "1", body: bytes | None = b"body", **more: Any) -> dict[str, Any]:
    """An access line as far as the comparison reads it."""
    digest = {"digest": sha256(body).hexdigest(), "bytes": len(body)} if body is not None else {"bytes": 70_000}
    said = {
        "id": name,
        "group": GROUP,
        "route": "r",
        "target": "/t",
        "status": 200,
        "reason": None,
        "pool": f"pool-{name}",
    }
    return said | ({"leg": leg} if leg else {}) | digest | more


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(limit=3, age=60)


def told(comparison: Comparison, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    return [compared for seen in lines for compared in comparison.see(seen, 0)]


def test_equal_answers_are_the_same(comparison: Comparison) -> None:
    """The whole line, as it is documented."""
    side = {"status": 200, "digest": sha256(b"body").hexdigest(), "bytes": 4, "reason": None}
    (compared,) = told(comparison, line("primary", "1", app_ms=1.5), line("shadow", "2", app_ms=2.5))
    assert compared == {
        "group": GROUP,
        "route": "r",
        "target": "/t",
        "primary": side | {"pool": "pool-1", "app_ms": 1.5},
        "shadow": side | {"pool": "pool-2", "app_ms": 2.5},
        "same": True,
        "differs": [],
    }


@pytest.mark.parametrize(
    ("shadow", "differs"),
    [
        (line("shadow", "2", status=404), ["status"]),
        (line("shadow", "2", b"ydob"), ["body"]),
        (line("shadow", "2", b"longer body"), ["body"]),
        (line("shadow", "2", b"other", status=500), ["status", "body"]),
        (line("shadow", "2", b"", status=504, reason=Reason.QUEUE_TIMEOUT), ["status", "ending"]),
        (line("shadow", "2", None, status=499, reason=Reason.SUPERSEDED), ["status", "ending"]),
        (line("shadow", "2", None, status=503, reason=Reason.UNROUTABLE), ["status", "ending"]),
        (line("shadow", "2", None, bytes=4), ["unknown"]),
        (line("shadow", "2", None, bytes=5), ["body"]),
    ],
)
def test_what_differs_is_named(comparison: Comparison, shadow: dict[str, Any], differs: list[str]) -> None:
    """A shadow that was never answered makes a line as well."""
    (compared,) = told(comparison, line("primary"), shadow)
    assert (compared["differs"], compared["same"]) == (differs, False)


def test_two_that_failed_alike_are_the_same(comparison: Comparison) -> None:
    failed: dict[str, Any] = {"status": 500, "reason": Reason.APP_ERROR}
    (compared,) = told(comparison, line("primary", **failed), line("shadow", "2", b"x", **failed))
    assert compared["same"] is True


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_order_does_not_matter(comparison: Comparison, order: tuple[int, ...]) -> None:
    """Three shadows of one primary are three lines, whoever ends first."""
    lines = [line("primary"), line("shadow", "2"), line("shadow", "3"), line("shadow", "4", b"other")]
    compared = told(comparison, *(lines[place] for place in order))
    assert sorted((c["shadow"]["pool"], c["same"]) for c in compared) == [
        ("pool-2", True),
        ("pool-3", True),
        ("pool-4", False),
    ]
    assert {c["primary"]["pool"] for c in compared} == {"pool-1"}


def test_other_lines_are_not_remembered(comparison: Comparison) -> None:
    """Of requests without copies, of other legs, and of endings without a known request."""
    others = [line(None), line("first"), line("all"), line("hedge"), line("primary", unmatched=True)]
    assert told(comparison, *others, line("primary", group=None)) == []
    assert len(comparison) == 0


def test_a_second_ending_of_a_copy_is_not_compared_again(comparison: Comparison) -> None:
    """And a second one of the primary changes nothing."""
    compared = told(
        comparison, line("shadow", "2"), line("shadow", "2"), line("primary"), line("primary", body=b"x"),
        line("shadow", "2"), line("shadow", "3"),
    )  # fmt: skip
    assert [(c["shadow"]["pool"], c["same"]) for c in compared] == [("pool-2", True), ("pool-3", True)]


def test_primaries_without_a_shadow_do_not_pile_up(comparison: Comparison) -> None:
    """Those of a route that hedges: the oldest go, and are no loss."""
    for number in range(100):
        assert told(comparison, line("primary", group=str(number))) == []
    assert (len(comparison), comparison.forgotten) == (3, 0)


def test_shadows_without_a_primary_are_forgotten_and_counted(comparison: Comparison) -> None:
    """By number …"""
    for number in range(5):
        told(comparison, line("shadow", "a", group=str(number)), line("shadow", "b", group=str(number)))
    assert (len(comparison), comparison.forgotten) == (3, 4)
    assert told(comparison, line("primary", group="1")) == []


def test_old_groups_are_forgotten(comparison: Comparison) -> None:
    """… and by age."""
    assert comparison.see(line("shadow"), 100) == []
    assert comparison.see(line("primary", group="other"), 159) == []
    assert len(comparison) == 2
    assert comparison.see(line("primary"), 161) == []
    assert (len(comparison), comparison.forgotten) == (2, 1)
    # Any line is an occasion.
    assert comparison.see(line(None), 1000) == []
    assert len(comparison) == 0


def test_a_group_is_bounded_itself(comparison: Comparison) -> None:
    """Nobody can fill the tap with shadows of one request."""
    for number in range(1000):
        told(comparison, line("shadow", str(number)))
    assert comparison.forgotten == 984
    assert len(told(comparison, line("primary"))) == 16


def seen(log: AccessLog, envelope: Envelope, payload: bytes) -> dict[str, Any] | None:
    return log.see(observe(0.0, envelope, payload, None, redelivered=False))


def asked(name: str, leg: Leg | None = None) -> Envelope:
    group = GROUP if leg else None
    return Envelope(Kind.REQUEST, name, "edge-1", reply_to="r", route="r", sent=1_000, leg=leg, group=group)


def test_the_access_log_says_what_is_compared() -> None:
    """From messages to the line: a whole answer's digest is made here, a streamed one's is the edge's word."""
    log, comparison = AccessLog(10, Redactor()), Comparison(10, 60)
    seen(log, asked("a", Leg.PRIMARY), REQUEST)
    seen(log, asked("b", Leg.SHADOW), REQUEST)
    answer = encode_response(Response(200, [], b"made it"))
    lines = [seen(log, Envelope(Kind.RESPONSE, "a", "worker-1", pool="x", duration=1_000, sent=1_100), answer)]
    streamed = encode_response(Response(200), more=True)
    lines.append(seen(log, Envelope(Kind.RESPONSE, "b", "worker-2", pool="y", sent=1_100, more=True), streamed))
    told_by_edge = sha256(b"made it").hexdigest()
    ended = Envelope(Kind.ENDED, "b", "edge-1", status=200, size=7, sent=1_200, digest=told_by_edge)
    lines.append(seen(log, ended, b""))
    (compared,) = told(comparison, *(line for line in lines if line is not None))
    assert compared["same"] is True
    assert compared["target"] == "/a?b=c"
    assert (compared["primary"]["pool"], compared["shadow"]["pool"]) == ("x", "y")


@pytest.mark.parametrize("digest", [None, "", "x" * 64, "a" * 1_000_000])
def test_a_digest_that_is_none_is_not_believed(digest: str | None) -> None:
    """Nor kept."""
    log = AccessLog(10, Redactor())
    seen(log, asked("b", Leg.SHADOW), REQUEST)
    found = seen(log, Envelope(Kind.ENDED, "b", "edge-1", status=200, size=7, digest=digest), b"")
    assert found is not None
    assert "digest" not in found


def test_only_copies_that_are_compared_are_hashed() -> None:
    """It costs time, and says nothing of others."""
    log = AccessLog(10, Redactor())
    answer = encode_response(Response(200, [], b"made it"))
    digests = {}
    for leg in (None, *Leg):
        seen(log, asked("a", leg), REQUEST)
        found = seen(log, Envelope(Kind.RESPONSE, "a", "worker-1"), answer)
        assert found is not None
        digests[leg] = "digest" in found
    assert digests == {leg: leg in (Leg.PRIMARY, Leg.SHADOW) for leg in (None, *Leg)}
