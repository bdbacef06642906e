"""Recordings: what is paired, what is left out and told, and that nothing is given out as it came."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from rabbitbal.tap import recording as recording_module
from rabbitbal.tap import web
from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.observation import observe
from rabbitbal.tap.recorder import MOST_RECORDINGS, Busy, Recorder, router
from rabbitbal.tap.recording import Recording, Wanted
from rabbitbal.tap.redaction import MARK, Redactor
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.flow import INLINE
from rabbitbal.wire.message import Request, Response, encode_request, encode_response
from rabbitbal.wire.reasons import Reason
from rabbitbal.wire.recording import REDACTED, Exchange, Partial, decode_exchange

SECRET = b"Basic c2VjcmV0"


class Tap:
    """The journal's part and the recorder's, without the broker."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._access = AccessLog(1000, Redactor())

    def see(self, envelope: Envelope, payload: bytes = b"") -> None:
        seen = observe(1.0, envelope, payload, None, redelivered=False)
        seen.line = self._access.see(seen)
        self.recorder.see(seen)

    def request(self, name: str, request: Request, route: str = "default", **more: Any) -> None:
        envelope = Envelope(Kind.REQUEST, name, "edge-1", "response.edge-1", route=route, sent=1000, **more)
        self.see(envelope, encode_request(request, more=bool(envelope.more)))

    def response(self, name: str, response: Response, pool: str = "default", **more: Any) -> None:
        envelope = Envelope(Kind.RESPONSE, name, "worker-1", pool=pool, sent=1050, duration=20_000, **more)
        self.see(envelope, encode_response(response, more=bool(envelope.more)))

    def ended(self, name: str, payload: bytes = b"", **more: Any) -> None:
        self.see(Envelope(Kind.ENDED, name, "edge-1", sent=1100, **more), payload)

    def exchange(self, name: str, target: bytes = b"/", route: str = "default", pool: str = "default") -> None:
        self.request(name, Request("GET", target, [(b"Host", b"h")]), route)
        self.response(name, Response(200, [(b"Content-Length", b"2")], b"ok"), pool)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(Redactor())


@pytest.fixture
def tap(recorder: Recorder) -> Tap:
    return Tap(recorder)


async def until_end(recording: Recording) -> tuple[list[Exchange], dict[str, Any]]:
    """All exchanges, and the last counts."""
    found, counts = [], {}
    async for line in recording.lines():
        read = decode_exchange(line.rstrip(b"\n"))
        if isinstance(read, Exchange):
            found.append(read)
        else:
            counts = read
    return found, counts


async def test_a_request_and_its_answer_make_a_line(recorder: Recorder, tap: Tap) -> None:
    """With its route, pool, worker and times; both messages whole."""
    recording = recorder.begin(Wanted(), limit=1)
    body = b'{"a": 1}'
    fields = [(b"Host", b"h"), (b"Content-Type", b"application/json"), (b"Content-Length", b"8")]
    tap.request("a1", Request("POST", b"/a?b=c", fields, body), route="shop")
    tap.response("a1", Response(201, [(b"Content-Length", b"4")], b"\xff\x00\r\n"), pool="north", attempt=2)
    (exchange,), counts = await until_end(recording)
    assert exchange == Exchange(
        id="a1",
        when=1000,
        request=Request("POST", b"/a?b=c", fields, body),
        response=Response(201, [(b"Content-Length", b"4")], b"\xff\x00\r\n"),
        status=201,
        route="shop",
        pool="north",
        worker="worker-1",
        attempt=2,
        app_ms=20.0,
        queue_ms=30.0,
        total_ms=50.0,
    )
    assert counts == {"recorded": 1, "skipped": 0, "forgotten": 0, "end": "limit"}


async def test_nothing_is_given_out_as_it_came(recorder: Recorder, tap: Tap) -> None:
    """Credentials in fields, targets and bodies of both messages are replaced, and the lengths are true again."""
    recording = recorder.begin(Wanted(), limit=1)
    body, answer = b"user=u&password=hunter2", b'{"access_token": "t0ken", "b": [1]}'
    form = [
        (b"Authorization", SECRET),
        (b"Cookie", b"s=c00kie"),
        (b"Content-Type", b"application/x-www-form-urlencoded"),
        (b"Content-Length", b"%d" % len(body)),
    ]
    tap.request("a1", Request("POST", b"/login?token=t0ken&a=b", form, body))
    fields = [(b"Set-Cookie", b"s=c00kie"), (b"Content-Type", b"application/json")]
    tap.response("a1", Response(200, [*fields, (b"Content-Length", b"%d" % len(answer))], answer))
    lines = [line async for line in recording.lines()]
    for secret in (SECRET, b"c00kie", b"hunter2", b"t0ken"):
        assert secret not in b"".join(lines)
    exchange = decode_exchange(lines[1].strip())
    assert isinstance(exchange, Exchange)
    assert exchange.request.body == b"user=u&password=[redacted]"
    assert exchange.request.target == b"/login?token=[redacted]&a=b"
    assert exchange.response is not None
    assert json.loads(exchange.response.body) == {"access_token": "[redacted]", "b": [1]}


def test_whoever_replays_knows_the_mark() -> None:
    """The reader of a recording must not compare what was replaced."""
    assert REDACTED == MARK


async def test_without_a_redactor_all_is_given_out(tap: Tap) -> None:
    """As the owner of the data has chosen."""
    tap = Tap(Recorder(None))
    recording = tap.recorder.begin(Wanted(), limit=1)
    tap.request("a1", Request("GET", b"/", [(b"Authorization", SECRET)]))
    tap.response("a1", Response(204))
    (exchange,), _ = await until_end(recording)
    assert exchange.request.fields == [(b"Authorization", SECRET)]


async def test_a_body_in_pieces_is_partial(recorder: Recorder, tap: Tap) -> None:
    """Of both directions: the head, and of the body what was declared or told at the end. The first bytes are left
    out, as no rule can be applied to half a document."""
    recording = recorder.begin(Wanted(), limit=1)
    declared = [(b"Content-Length", b"100000")]
    tap.request("a1", Request("PUT", b"/up", declared, b"{"), more=True)
    tap.response("a1", Response(200, [], b"first"), more=True)
    tap.ended("a1", status=200, size=70_000, attempt=1)
    (exchange,), _ = await until_end(recording)
    assert (exchange.request.body, exchange.request_body) == (b"", Partial(100_000))
    assert exchange.response == Response(200)
    assert exchange.response_body == Partial(70_000)
    assert (exchange.queue_ms, exchange.total_ms) == (30.0, 100.0)


async def test_a_body_that_is_larger_than_ours_is_partial(recorder: Recorder, tap: Tap) -> None:
    """A worker of somebody else may send more with the head."""
    recording = recorder.begin(Wanted(), limit=1)
    size = INLINE + 1
    tap.request("a1", Request("GET", b"/"))
    tap.response("a1", Response(200, [(b"Content-Length", b"%d" % size)], b"x" * size))
    (exchange,), _ = await until_end(recording)
    assert exchange.response_body == Partial(size)


async def test_an_ending_without_an_answer_is_recorded_as_that(recorder: Recorder, tap: Tap) -> None:
    """One that timed out in the queue, and one that came to no pool, whose body nobody has seen."""
    recording = recorder.begin(Wanted(), limit=2)
    tap.request("a1", Request("GET", b"/slow"))
    tap.ended("a1", status=504, reason=Reason.QUEUE_TIMEOUT)
    tap.ended("b2", encode_request(Request("POST", b"/nowhere")), status=503, reason=Reason.UNROUTABLE)
    (one, other), _ = await until_end(recording)
    assert (one.response, one.status, one.reason) == (None, 504, "queue-timeout")
    assert one.request_body is None
    assert (other.response, other.status, other.request_body) == (None, 503, Partial())


async def test_a_workers_error_is_no_application_s_answer(recorder: Recorder, tap: Tap) -> None:
    """There is nothing in it that a replay could be compared with."""
    recording = recorder.begin(Wanted(), limit=1)
    tap.request("a1", Request("GET", b"/"))
    tap.response("a1", Response(500, [(b"Content-Length", b"1")], b"!"), reason=Reason.APP_ERROR)
    (exchange,), _ = await until_end(recording)
    assert (exchange.response, exchange.status, exchange.reason) == (None, 500, "app-error")


async def test_only_what_is_wanted_is_recorded(recorder: Recorder, tap: Tap) -> None:
    """By route, pool, method and the beginning of the path."""
    wanted = Wanted(route="shop", pool="north", method="GET", path="/a/")
    recording = recorder.begin(wanted, limit=1)
    tap.exchange("other-route", b"/a/1", "default", "north")
    tap.exchange("other-pool", b"/a/1", "shop", "south")
    tap.exchange("other-path", b"/b/1", "shop", "north")
    tap.request("other-method", Request("HEAD", b"/a/1"), "shop")
    tap.response("other-method", Response(200), "north")
    tap.exchange("this", b"/a/1", "shop", "north")
    found, _ = await until_end(recording)
    assert [exchange.id for exchange in found] == ["this"]
    assert len(recorder) == 0


def test_a_sample_is_a_share(recorder: Recorder) -> None:
    """Chosen by the id, so that two recordings have the same requests."""
    wanted, request = Wanted(sample=0.25), Request("GET", b"/")
    taken = [name for name in map(str, range(4000)) if wanted.takes(name, None, request)]
    assert 850 < len(taken) < 1150
    assert taken == [name for name in map(str, range(4000)) if wanted.takes(name, None, request)]


def test_nothing_is_remembered_while_nobody_records(recorder: Recorder, tap: Tap) -> None:
    """A request that began before the recording is not recorded, and one that has not ended is forgotten after it."""
    tap.request("a1", Request("GET", b"/"))
    assert len(recorder) == 0
    recording = recorder.begin(Wanted())
    tap.response("a1", Response(204))
    tap.request("b2", Request("GET", b"/"))
    assert len(recorder) == 1
    recorder.end(recording)
    assert len(recorder) == 0


async def test_open_requests_are_bounded_in_number_and_bytes() -> None:
    """The oldest is forgotten and counted."""
    tap = Tap(Recorder(Redactor(), limit=10, limit_bytes=100_000))
    recording = tap.recorder.begin(Wanted(), limit=1)
    for number in range(15):
        tap.request(str(number), Request("GET", b"/"))
    assert (len(tap.recorder), tap.recorder.forgotten) == (10, 5)
    body = b"x" * 60_000
    for number in range(2):
        tap.request(f"large-{number}", Request("POST", b"/", [(b"Content-Length", b"60000")], body))
    assert len(tap.recorder) == 1
    tap.response("large-1", Response(204))
    _, counts = await until_end(recording)
    assert counts["forgotten"] == 16


async def test_a_slow_reader_loses_lines_and_is_told(
    recorder: Recorder, tap: Tap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tap does not wait, and holds a bounded number for each reader."""
    monkeypatch.setattr(recording_module, "QUEUE", 5)
    recording = recorder.begin(Wanted(), seconds=0.05)
    for number in range(12):
        tap.exchange(str(number))
    found, counts = await until_end(recording)
    assert [exchange.id for exchange in found] == ["0", "1", "2", "3", "4"]
    assert counts == {"recorded": 5, "skipped": 7, "forgotten": 0, "end": "seconds"}


async def test_what_waits_for_a_reader_is_bounded_in_bytes(
    recorder: Recorder, tap: Tap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_module, "QUEUE_BYTES", 10_000)
    recording = recorder.begin(Wanted(), seconds=0.05)
    for number in range(12):
        tap.exchange(str(number))
    found, counts = await until_end(recording)
    assert 1 < len(found) < 6
    assert counts["skipped"] == 12 - len(found)


async def test_a_tap_that_stops_ends_its_recordings(recorder: Recorder, tap: Tap) -> None:
    """They have a last line that says so."""
    recording = recorder.begin(Wanted())
    tap.exchange("a1")
    asyncio.get_running_loop().call_later(0.05, recorder.close)
    found, counts = await until_end(recording)
    assert (len(found), counts["end"]) == (1, "leaving")


def test_few_may_record_at_a_time(recorder: Recorder) -> None:
    recordings = [recorder.begin(Wanted()) for _ in range(MOST_RECORDINGS)]
    with pytest.raises(Busy):
        recorder.begin(Wanted())
    recorder.end(recordings[0])
    recorder.begin(Wanted())


# --- by HTTP


@pytest.fixture
async def address(recorder: Recorder) -> AsyncIterator[str]:
    server = web.Server(web.build([router(recorder)]), "127.0.0.1", 0)
    serving = asyncio.ensure_future(server.serve())
    await eventually(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - polls what tells nobody
            await asyncio.sleep(0.01)


async def test_a_recording_is_a_stream_of_lines(recorder: Recorder, tap: Tap, address: str) -> None:
    """It begins with its counts, goes on as requests end, and ends with the counts and the reason."""
    async with (
        httpx.AsyncClient(base_url=address) as client,
        client.stream("GET", "/api/record", params={"limit": 2, "path": "/a"}) as response,
    ):
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = response.aiter_lines()
        assert json.loads(await anext(lines))["recorded"] == 0
        tap.exchange("a1", b"/a")
        assert json.loads(await anext(lines))["id"] == "a1"
        tap.exchange("b2", b"/b")
        tap.exchange("c3", b"/a/c")
        rest = [json.loads(line) async for line in lines]
    assert [line["id"] for line in rest if "id" in line] == ["c3"]
    assert rest[-1] == {"recorded": 2, "skipped": 0, "forgotten": 0, "end": "limit"}
    await eventually(lambda: not recorder._recordings)


async def test_a_reader_who_leaves_ends_the_recording(recorder: Recorder, tap: Tap, address: str) -> None:
    """And one who finds too many others is told to come again."""
    async with httpx.AsyncClient(base_url=address) as client, contextlib.AsyncExitStack() as stack:
        for _ in range(MOST_RECORDINGS):
            await stack.enter_async_context(client.stream("GET", "/api/record"))
        refused = await client.get("/api/record")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert refused.json() == {"detail": f"{MOST_RECORDINGS} record already"}
        await stack.aclose()
        await eventually(lambda: not recorder._recordings)


@pytest.mark.parametrize(
    "query", ["sample=0", "sample=2", "sample=nan", "limit=0", "limit=x", "seconds=0", "route=" + "x" * 999]
)
async def test_what_makes_no_sense_is_refused(recorder: Recorder, address: str, query: str) -> None:
    async with httpx.AsyncClient(base_url=address) as client:
        assert (await client.get(f"/api/record?{query}")).status_code == 422
    assert not recorder._recordings
