"""Which requests are sent again, as what, and when."""

import asyncio
import io
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rabbitbal.operator import choice, recordings
from rabbitbal.operator.difference import Comparison, Difference
from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.recordings import load
from rabbitbal.operator.replaying import Course, Pace, pace, run
from rabbitbal.operator.tally import Tally, percentiles
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.recording import MOST_LINE, Exchange, Partial, encode_exchange

GET = Exchange("a1", 1000, Request("GET", b"/a", [(b"Host", b"h")]), Response(204))


POST = replace(GET, request=Request("POST", b"/a", [(b"Host", b"h")]))


# --- files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "traffic.ndjson"


def test_a_file_is_read_in_the_order_of_its_requests(file: Path) -> None:
    """They are recorded in the order of their endings. Counts and empty lines are no requests."""
    lines = [encode_exchange(replace(GET, id=str(when), when=when)) for when in (3, 1, 2)]
    file.write_text("\n\n".join([*lines, '{"recorded": 3, "skipped": 0}']))
    assert [exchange.id for exchange in load(file)] == ["1", "2", "3"]
    assert [exchange.id for exchange in load(file, limit=2)] == ["1", "3"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (encode_exchange(GET)[:40], "traffic.ndjson:3: not JSON; is the file cut off?"),
        ('{"id": 7}', "traffic.ndjson:3: request must be a text"),
        ("x" * (MOST_LINE + 2), f"traffic.ndjson:3: a line of {MOST_LINE + 1} characters"),
        ("\0\xff", "traffic.ndjson:3: not JSON"),
    ],
)
def test_a_bad_line_is_named(file: Path, bad: str, words: str) -> None:
    file.write_text(f"{encode_exchange(GET)}\n{encode_exchange(GET)}\n{bad}\n", "latin-1")
    with pytest.raises(Misused, match=words.replace("?", r"\?")):
        load(file)


def test_a_bad_archive_is_named(file: Path) -> None:
    file.write_text('{"log": {"entries": [{}]}}')
    with pytest.raises(Misused, match=r"traffic\.ndjson: entry 1: request must be an object"):
        load(file)
    with pytest.raises(Failed, match="No such file"):
        load(file.with_name("other"))


def test_a_file_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent again is held in memory."""
    monkeypatch.setattr(recordings, "MOST_BYTES", 1000)
    file.write_text(f"{encode_exchange(GET)}\n" * 10)
    with pytest.raises(Misused, match="say --limit"):
        load(file)
    assert len(load(file, limit=3)) == 3


# --- choice


def test_only_safe_methods_are_chosen_unless_others_are_named() -> None:
    """RFC 9110 §9.2.1."""
    taken, left = choice.chosen([GET, POST, POST], choice.methods(None))
    assert (taken, left) == ([GET], {"POST": 2})
    taken, left = choice.chosen([GET, POST], choice.methods("POST, PUT"))
    assert (taken, left) == ([POST], {"GET": 1})
    with pytest.raises(Misused):
        choice.methods("GET,P OST")


def test_what_cannot_be_sent_again_is_left_out_and_counted() -> None:
    """Bodies that are not recorded or too large, WebSockets, and the further copies of one client's request."""
    large = Request("GET", b"/", [(b"Content-Length", b"70000")], b"x" * 70_000)
    exchanges = [
        replace(GET, request_body=Partial(99_999)),
        replace(GET, request=large),
        replace(GET, request=replace(GET.request, upgrade="websocket")),
        replace(GET, request=Request("GET", b"/", [(b"Sec-WebSocket-Key", b"x")])),
        replace(GET, leg="first", group="g"),
        replace(GET, leg="first", group="g"),
        replace(GET, leg="shadow", group="h"),
    ]
    taken, left = choice.chosen(exchanges, choice.SAFE)
    assert taken == [exchanges[4]]
    assert left == {"body not recorded": 1, "body over 64 KiB": 1, "WebSocket": 2, "further copy": 2}


def test_fields_are_set_anew() -> None:
    """In the place of those with their names; the host where an application may look for it."""
    fields = [(b"Host", b"h"), (b"authorization", b"[redacted]"), (b"X-Forwarded-Host", b"h"), (b"A", b"1")]
    given = choice.headers(["Authorization: Bearer t", "B:2"])
    request = choice.anew(Request("GET", b"/", fields), given, "canary")
    assert request.fields == [
        (b"A", b"1"),
        (b"Authorization", b"Bearer t"),
        (b"B", b"2"),
        (b"Host", b"canary"),
        (b"X-Forwarded-Host", b"canary"),
    ]
    assert choice.anew(Request("GET", b"/", fields), [], None).fields == fields
    for bad in ("nocolon", ": x", "a b: c", "A: b\r\nC: d", "Content-Length: 3"):
        with pytest.raises(Misused):
            choice.headers([bad])


# --- pace


def test_a_pace_is_read() -> None:
    assert pace("2x") == Pace(speed=2.0)
    assert pace("0.5x") == Pace(speed=0.5)
    assert pace("50/s") == Pace(rate=50.0)
    assert pace("max") == Pace()
    for bad in ("", "2", "x", "0x", "-1x", "nanx", "1e9/s", "50/m", "maximum", "999999999/s"):
        with pytest.raises(Misused, match="must read like"):
            pace(bad)


async def sent(
    times: list[float], chosen: Pace, concurrency: int = 99, lasts: float = 0.0
) -> tuple[Course, list[float]]:
    """When each was sent, in seconds from the first."""
    loop, began = asyncio.get_running_loop(), []

    async def call(item: float) -> None:
        began.append(loop.time())
        await asyncio.sleep(lasts)

    course = await run(times, times, chosen, concurrency, call, asyncio.Event())
    return course, [moment - began[0] for moment in began]


async def test_requests_are_sent_at_their_times() -> None:
    """At twice the recorded speed, or at a steady rate whatever the times were. Calls that last delay nobody."""
    course, moments = await sent([5.0, 5.2, 5.2, 5.6], Pace(speed=2), lasts=0.3)
    assert moments == pytest.approx([0, 0.1, 0.1, 0.3], abs=0.045)
    assert (course.sent, course.late) == (4, 0)
    assert course.seconds == pytest.approx(0.6, abs=0.15)
    _, moments = await sent([0.0, 9.0, 99.0], Pace(rate=20))
    assert moments == pytest.approx([0, 0.05, 0.1], abs=0.04)


async def test_what_is_in_flight_is_bounded_and_lateness_told() -> None:
    """An open loop would send all at once; two at a time last longer, and that is said."""
    course, moments = await sent([0.0] * 6, Pace(speed=1), concurrency=2, lasts=0.1)
    assert moments == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2], abs=0.06)
    assert course.late == 4
    assert course.behind == pytest.approx(0.2, abs=0.06)
    course, _ = await sent([0.0] * 6, Pace(), concurrency=2, lasts=0.02)
    assert (course.sent, course.late) == (6, 0)


async def test_an_interrupt_ends_waits_and_calls() -> None:
    """What is in flight is cancelled, which tells its worker, and what is not due yet is not sent."""
    stop, ended = asyncio.Event(), []

    async def call(item: float) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(item)

    asyncio.get_running_loop().call_later(0.1, stop.set)
    began = time.monotonic()
    course = await run([0.0, 0.01, 30.0], [0.0, 0.01, 30.0], Pace(speed=1), 9, call, stop)
    assert time.monotonic() - began < 5
    assert (course.sent, course.interrupted, sorted(ended)) == (2, True, [0.0, 0.01])
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, stop.set)
    course = await run([0.0, 1.0], [0.0, 1.0], Pace(), 1, call, stop)
    assert (course.sent, course.interrupted) == (1, True)


async def test_a_defect_of_a_call_is_not_swallowed() -> None:
    async def call(item: float) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        await run([0.0], [0.0], Pace(), 1, call, asyncio.Event())


# --- numbers


def test_percentiles_are_ranks() -> None:
    assert percentiles([]) == [None, None, None]
    assert percentiles([3.0]) == [3.0, 3.0, 3.0]
    assert percentiles([float(number) for number in range(100)]) == [50, 95, 99]


def test_a_tally_counts_each_request_once() -> None:
    """And each kind of difference once for a request."""
    tally = Tally()
    tally.compared(Comparison())
    tally.compared(Comparison([], "size only"))
    tally.compared(Comparison([Difference("body", "a", None, "1"), Difference("body", "b", None, "1")]))
    assert tally.well is False
    tally.failed["queue-timeout"] += 2
    tally.uncompared += 1
    assert (tally.replayed, tally.same, tally.different) == (6, 2, 1)
    shown = json.loads(json.dumps(tally.shown()))
    assert (shown["different_by"], shown["failed"]) == ({"body": 1}, {"queue-timeout": 2})
    assert [row[1] for row in tally.rows()] == [6, 2, 1, 2, 1, 0]


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in a container, which sees no files of its caller."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encode_exchange(GET).encode())))
    assert load(recordings.PIPE) == [GET]
