"""Notices: what others say becomes a line of the log, and nothing else."""

import json
from typing import Any

import pytest
import structlog

from rabbitbal.tap.notices import MOST_BYTES, notice
from rabbitbal.wire.errors import WireError


def payload(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_a_notice_is_an_event_and_its_fields() -> None:
    """As the operator's command writes it."""
    said = {
        "when": "2026-01-01T00:00:00.250Z",
        "who": "me",
        "key": "reports",
        "from": ["a"],
        "to": "b",
        "seconds": 0.25,
    }
    assert notice(payload(event="pool.moved", **said)) == ("pool.moved", said)


@pytest.mark.parametrize(
    "event", ["routes.loaded", "routes.refused", "worker.drained", "worker.resumed", "pool.bound", "x.y.z.w"]
)
def test_events_have_words_joined_by_dots(event: str) -> None:
    assert notice(payload(event=event)) == (event, {})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b'{"event": "a.b", "n": NaN}', "not JSON"),
        (b'{"event": "a.b", "n": -Infinity}', "not JSON"),
        (b'{"event": "a.b", "n": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"pool.moved"', "not a JSON object"),
        (b"{}", "must name an event"),
        (payload(event=7), "must name an event"),
        (payload(event="moved"), "must name an event"),
        (payload(event="pool.moved\n"), "must name an event"),
        (payload(event="Pool.Moved"), "must name an event"),
        (payload(event="a." * 40 + "b"), "must name an event"),
        (payload(event="access.log"), "the tap's own"),
        (payload(event="tap.stopped"), "the tap's own"),
        (payload(event="shadow.compared"), "the tap's own"),
        (payload(event="a.b", text="x" * MOST_BYTES), "is the most"),
        (payload(event="a.b", **{f"f{n}": n for n in range(33)}), "33 fields"),
        (payload(event="a.b", a={"b": {"c": {"d": {"e": {}}}}}), "nested"),
        (payload(event="a.b", **{"A b": 1}), "cannot have a field 'A b'"),
        (payload(event="a.b", **{"a" * 50: 1}), "cannot have a field"),
        (payload(event="a.b", _record=1), "cannot have a field '_record'"),
    ],
)
def test_what_does_not_belong_in_a_log_is_refused(body: bytes, words: str) -> None:
    """With a text that says why, and is short whatever came."""
    with pytest.raises(WireError, match=words) as refused:
        notice(body)
    assert len(str(refused.value)) < 120


@pytest.mark.parametrize(
    "name", ["timestamp", "level", "service", "instance", "sender", "user", "self", "method_name", "exc_info"]
)
def test_nobody_sets_the_fields_of_the_log_itself(name: str) -> None:
    """Nor takes another's name, nor makes the logger raise."""
    with pytest.raises(WireError, match=name):
        notice(payload(event="pool.moved", **{name: "x"}))


@pytest.mark.parametrize(
    "name", ["args", "kw", "event_kw", "name", "msg", "extra", "message", "process", "from", "class"]
)
def test_any_other_field_can_be_logged(name: str) -> None:
    """Whatever the logger's own parameters are called."""
    event, fields = notice(payload(event="a.b", **{name: "x"}))
    with structlog.testing.capture_logs() as lines:
        structlog.get_logger().info(event, **fields)
    assert [{"event": "a.b", name: "x", "log_level": "info"}] == lines


def test_long_texts_are_cut() -> None:
    """At any depth: in lists, too."""
    _, fields = notice(payload(event="routes.refused", error="x" * 5000, errors=["y" * 5000, {"at": "z" * 5000}]))
    assert [len(fields["error"]), len(fields["errors"][0]), len(fields["errors"][1]["at"])] == [1000] * 3
