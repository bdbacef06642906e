"""The journal: a line for each ended request, in the order in which things happened."""

import json
from typing import Any

import pytest
import structlog

from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.comparison import Comparison
from rabbitbal.tap.journal import Journal
from rabbitbal.tap.observation import Observation, observe
from rabbitbal.tap.redaction import Redactor
from rabbitbal.tap.sinks import Sinks
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import Request, Response, encode_request, encode_response

REQUEST = encode_request(Request("GET", b"/a?token=hidden", [(b"Cookie", b"hidden")]))
RESPONSE = encode_response(Response(200, [(b"Set-Cookie", b"hidden")], b"body"))


class Told:
    """What was written, by whomever, in order."""

    name = "told"

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def write(self, lines: list[bytes]) -> None:
        self.lines += [json.loads(line) for line in lines]

    def log(self, _: object, __: str, event: structlog.types.EventDict) -> Any:
        self.lines.append(dict(event))
        raise structlog.DropEvent


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    told = Told()
    with structlog.testing.capture_logs():
        structlog.configure(processors=[told.log])
        yield told
    structlog.reset_defaults()


@pytest.fixture
def journal(told: Told) -> Journal:
    sinks = Sinks(lambda line, at: json.dumps({"at": at, **line}), [told], lambda *_: None)  # type: ignore[list-item]
    return Journal(AccessLog(10, Redactor()), Comparison(10, 60), sinks)


def seen(envelope: Envelope, payload: bytes, at: float = 9.0) -> Observation:
    return observe(at, envelope, payload, "edge", redelivered=False)


def asked(name: str, leg: Leg | None = None) -> Observation:
    group = "g" * 32 if leg else None
    envelope = Envelope(Kind.REQUEST, name, "edge-1", reply_to="r", route="r", sent=1_000, leg=leg, group=group)
    return seen(envelope, REQUEST)


def answered(name: str, sent: int | None = 1_100) -> Observation:
    return seen(Envelope(Kind.RESPONSE, name, "worker-1", duration=1_000, sent=sent), RESPONSE)


def test_a_line_is_put_where_the_other_parts_find_it_and_written_when_the_batch_is(
    journal: Journal, told: Told
) -> None:
    """The same line, without secrets, and only once."""
    journal.see(asked("a"))
    last = answered("a")
    journal.see(last)
    assert last.line is not None
    assert told.lines == []
    journal.flush()
    journal.flush()
    assert told.lines == [{"at": 1.1, **last.line}]
    assert told.lines[0]["target"] == "/a?token=[redacted]"
    assert "hidden" not in repr(told.lines)


@pytest.mark.parametrize(("sent", "expected"), [(1_100, 1.1), (None, 9.0), (0, 9.0), (1 << 62, 9.0)])
def test_the_time_of_a_line_is_that_of_the_ending(
    journal: Journal, told: Told, sent: int | None, expected: float
) -> None:
    """A tap that lags does not change it; a clock that is ahead, or a stranger's, does not lead into the future."""
    journal.see(asked("a"))
    journal.see(answered("a", sent))
    journal.flush()
    assert told.lines[0]["at"] == expected


def test_a_comparison_and_a_notice_stand_behind_the_accesses_before_them(journal: Journal, told: Told) -> None:
    """Although accesses are written in batches."""
    for message in (
        asked("a", Leg.PRIMARY),
        asked("b", Leg.SHADOW),
        answered("a"),
        answered("b"),
        asked("c"),
        answered("c"),
    ):
        journal.see(message)
    journal.see(seen(Envelope(Kind.NOTICE, "n", "operator-1"), b'{"event": "pool.moved", "to": "b"}'))
    journal.see(asked("d"))
    journal.see(answered("d"))
    journal.flush()
    assert [line.get("event", line.get("id")) for line in told.lines] == [
        "a",
        "b",
        "shadow.compared",
        "c",
        "pool.moved",
        "d",
    ]
