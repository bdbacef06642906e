"""Bodies in pieces, through nginx: they arrive as they are sent, whole or not at all, and end when they must."""

import hashlib
import json
import random
import time
from secrets import token_hex

import pytest

from integration.client import Background, Call, get, send
from integration.deployment import Deployment, moment
from integration.polling import eventually
from integration.talk import Broken, Talk

MIB = 1024 * 1024
PIECE = 64 * 1024
DATA = random.Random(3).randbytes(8 * MIB)
BLOCK = bytes(range(256)) * 256


def digest(data: bytes) -> dict[str, object]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def said(deployment: Deployment, event: str, key: str) -> bool:
    return deployment.keys(event)[key] > 0


def at_rest(deployment: Deployment) -> None:
    """Nothing is left of any request."""
    eventually(lambda: deployment.stats()["pending"] == 0, "the edge holds nothing")
    eventually(
        lambda: all(queue["messages_unacknowledged"] == 0 for queue in deployment.queues().values()),
        "no worker holds anything",
    )


# --- responses


def test_a_piece_arrives_before_the_next_is_sent(shared: Deployment) -> None:
    """The page would take minutes: whoever collected its body would show none of it in time."""
    shared.ready(workers=8)
    key = token_hex(4)
    with Talk(shared.http) as talk:
        talk.ask("GET", f"/stream?chunks=1000&ms=200&key={key}")
        assert talk.status() == 200
        assert talk.fields["transfer-encoding"] == "chunked"
        pieces = talk.pieces()
        first = [next(pieces) for _ in range(3)]
        assert first == [b"chunk %d of 1000\n" % n for n in (1, 2, 3)]
    eventually(lambda: said(shared, "gone", key), "the application is told that its client left")
    line = shared.ended(key)
    assert (line["status"], line["reason"]) == (200, "client-gone")
    assert line["bytes"] >= len(b"".join(first))
    at_rest(shared)


def test_events_arrive_one_by_one(shared: Deployment) -> None:
    shared.ready(workers=8)
    with Talk(shared.http) as talk:
        talk.ask("GET", "/sse?events=1000&ms=100", "Accept: text/event-stream")
        assert talk.status() == 200
        assert talk.fields["content-type"] == "text/event-stream"
        events = talk.pieces()
        for number in range(1, 6):
            assert next(events).startswith(b"id: %d\n" % number)


def test_a_large_response_comes_whole(shared: Deployment) -> None:
    shared.ready(workers=8)
    key = token_hex(4)
    size = 20 * MIB + 13
    with Talk(shared.http) as talk:
        talk.ask("GET", f"/bytes/{size}?key={key}")
        assert (talk.status(), talk.fields["content-length"]) == (200, str(size))
        expected, received = hashlib.sha256(), hashlib.sha256()
        for piece in talk.pieces():
            received.update(piece)
        for start in range(0, size, len(BLOCK)):
            expected.update(BLOCK[: size - start])
        assert received.digest() == expected.digest()
        # And the connection goes on.
        talk.ask("GET", "/whoami")
        assert talk.status() == 200
    line = shared.ended(key)
    assert (line["status"], line["reason"], line["bytes"]) == (200, None, size)


def test_a_streamed_body_without_bytes_has_an_end(shared: Deployment) -> None:
    shared.ready(workers=8)
    with Talk(shared.http) as talk:
        for _ in range(2):
            talk.ask("GET", "/probe/empty")
            assert (talk.status(), talk.body()) == (200, b"")


def test_an_application_that_fails_half_way_breaks_the_connection(shared: Deployment) -> None:
    shared.ready(workers=8)
    key = token_hex(4)
    with Talk(shared.http) as talk:
        talk.ask("GET", f"/probe/breaks?key={key}")
        assert talk.status() == 200
        pieces = talk.pieces()
        assert next(pieces) == b"half"
        with pytest.raises(Broken):
            next(pieces)
    line = shared.ended(key)
    assert (line["status"], line["reason"], line["bytes"]) == (200, "app-error", 4)


# --- requests


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_large_body_reaches_one_worker_whole(shared: Deployment, method: str) -> None:
    shared.ready(workers=8)
    answer = send(shared.http, Call("/digest", method, (("Expect", "100-continue"),), DATA))
    assert (answer.status, answer.attempt) == (200, "1")
    assert json.loads(answer.body) == digest(DATA)


def test_a_chunked_body_may_be_of_any_length_and_pace(shared: Deployment) -> None:
    shared.ready(workers=8)
    with Talk(shared.http) as talk:
        talk.ask("POST", "/digest", "Transfer-Encoding: chunked")
        for start in range(0, MIB, 50_000):
            talk.chunk(DATA[start : min(start + 50_000, MIB)])
        talk.chunk(b"")
        assert talk.status() == 200
        assert talk.json() == digest(DATA[:MIB])


def test_a_body_is_answered_while_it_is_being_sent(shared: Deployment) -> None:
    """Each piece comes back before the next is sent."""
    shared.ready(workers=8)
    with Talk(shared.http) as talk:
        talk.ask("POST", "/probe/both", "Transfer-Encoding: chunked")
        talk.chunk(b"piece 0")
        assert talk.status() == 200
        pieces = talk.pieces()
        assert next(pieces) == b"piece 0"
        for number in range(1, 5):
            talk.chunk(b"piece %d" % number)
            assert next(pieces) == b"piece %d" % number
        talk.chunk(b"")
        assert list(pieces) == []


def test_an_answer_may_come_before_the_body(shared: Deployment) -> None:
    """Whoever sends on without looking still finds it."""
    shared.ready(workers=8)
    with Talk(shared.http) as talk:
        talk.ask("POST", "/probe/early", f"Content-Length: {4 * MIB}")
        talk.send(DATA[:PIECE])
        assert (talk.status(), talk.body()) == (401, b"no")
    at_rest(shared)


def test_a_chunked_body_over_the_limit_is_refused_in_its_middle(strict: Deployment) -> None:
    strict.ready(workers=1)
    key = token_hex(4)
    with Talk(strict.http) as talk:
        talk.ask("POST", f"/digest?key={key}", "Transfer-Encoding: chunked")
        talk.chunk(DATA[: 90 * 1024])
        eventually(lambda: said(strict, "ran", key), "the application runs")
        talk.chunk(DATA[: 20 * 1024])
        assert talk.status() == 413
        assert talk.fields["rabbitbal-error"] == "body-too-large"
    eventually(lambda: said(strict, "gone", key), "the application is stopped")


# --- clients that leave


@pytest.mark.parametrize("target", ["/probe/hold", "/probe/head", "/sse?events=100000&ms=60000", "/digest"])
def test_the_application_hears_at_once_that_its_client_left(shared: Deployment, target: str) -> None:
    """The mark is 250 ms; what is asserted here leaves room for a busy machine."""
    shared.ready(workers=8)
    key = token_hex(4)
    separator = "&" if "?" in target else "?"
    with Talk(shared.http) as talk:
        lines = ("Content-Length: 1000000",) if target == "/digest" else ()
        talk.ask("POST" if lines else "GET", f"{target}{separator}key={key}", *lines)
        if lines:
            talk.send(b"x" * 300_000)
        eventually(lambda: said(shared, "ran", key), "the application runs")
    left = time.time()

    eventually(lambda: said(shared, "gone", key) or said(shared, "cancelled", key), "the application is told", 3, 0.02)
    told = [line["at"] for w in shared.workers() for line in shared.events(w, "gone") if line["key"] == key]
    print(f"{target}: told {(told[0] - left) * 1000:.0f} ms after the client left" if told else target)
    at_rest(shared)


def test_a_queued_request_of_a_client_that_left_is_not_run(strict: Deployment) -> None:
    strict.ready(workers=1)
    keys = [token_hex(4) for _ in range(2)]
    holding = Background(strict.http, *(Call(f"/work?ms=1500&key={key}") for key in keys))
    for key in keys:
        strict.runner(key)
    lost, kept = token_hex(4), token_hex(4)
    with Talk(strict.http) as talk:
        talk.ask("POST", f"/work?ms=0&key={lost}", "Content-Length: 0")
        eventually(lambda: strict.queues()["pool.default"]["messages_ready"] == 1, "it waits in the queue")
    assert get(strict.http, f"/work?ms=0&key={kept}").status == 200
    assert [answer.status for answer in holding.answers()] == [200, 200]
    runs = strict.runs()
    assert (runs[kept], runs[lost]) == (1, 0)
    assert strict.ended(lost)["reason"] == "client-gone"
    at_rest(strict)


# --- workers and edges that die


def test_a_worker_killed_in_an_upload_costs_nothing_that_may_be_repeated(shared: Deployment) -> None:
    shared.ready(workers=8)
    key = token_hex(4)
    with Talk(shared.http) as talk:
        talk.ask("PUT", f"/digest?key={key}", f"Content-Length: {len(DATA)}")
        talk.send(DATA[: 2 * MIB])
        shared.kill(shared.runner(key))
        talk.send(DATA[2 * MIB :])
        assert talk.status() == 200
        assert talk.fields["rabbitbal-attempt"] == "2"
        assert talk.json() == digest(DATA)
    assert shared.ended(key)["attempt"] == 2


def test_a_worker_killed_in_an_upload_that_may_not_be_repeated_is_told(shared: Deployment) -> None:
    shared.ready(workers=8)
    key = token_hex(4)
    with Talk(shared.http) as talk:
        talk.ask("POST", f"/digest?key={key}", f"Content-Length: {len(DATA)}")
        talk.send(DATA[: 2 * MIB])
        shared.kill(shared.runner(key))
        assert talk.status() == 502
        assert talk.fields["rabbitbal-error"] == "worker-lost"
    assert shared.runs()[key] == 1


@pytest.mark.parametrize("target", ["/probe/head", "/stream?chunks=10000&ms=50", "/sse?events=100000&ms=60000"])
def test_a_worker_killed_in_its_response_breaks_the_connection(shared: Deployment, target: str) -> None:
    """Between head and body, in a body that flows, and in one that rests."""
    shared.ready(workers=8)
    key = token_hex(4)
    with Talk(shared.http) as talk:
        talk.ask("GET", f"{target}{'&' if '?' in target else '?'}key={key}")
        assert talk.status() == 200
        pieces = talk.pieces()
        if "head" not in target:
            next(pieces)
        shared.kill(shared.runner(key))
        with pytest.raises(Broken):
            list(pieces)
    line = shared.ended(key)
    assert (line["status"], line["reason"]) == (200, "worker-lost")
    assert shared.runs()[key] == 1


def test_a_stream_that_lasts_leaves_its_slot(small: Deployment) -> None:
    """Three workers with one slot each serve nine streams, and other requests besides."""
    small.ready(workers=3)
    talks = [Talk(small.http) for _ in range(9)]
    try:
        for talk in talks:
            talk.ask("GET", "/sse?events=100000&ms=1000")
        for talk in talks:
            assert talk.status() == 200
            next(talk.pieces())
        assert get(small.http, "/whoami", 20).status == 200
        assert small.stats()["pending"] == 9
    finally:
        for talk in talks:
            talk.close()
    at_rest(small)


@pytest.mark.timeout(150)
def test_the_stream_of_an_edge_that_died_is_stopped(shared: Deployment) -> None:
    shared.ready(workers=8)
    key = token_hex(4)
    with Talk(shared.http) as talk:
        talk.ask("GET", f"/sse?events=100000&ms=60000&key={key}")
        assert talk.status() == 200
        pieces = talk.pieces()
        next(pieces)
        shared.kill(shared.container("edge"))
        with pytest.raises(Broken):
            list(pieces)
    eventually(lambda: said(shared, "gone", key), "the application is told", 30)
    shared.ready(workers=8)


@pytest.mark.timeout(200)
def test_a_broker_that_restarts_breaks_streams_and_nothing_else(shared: Deployment) -> None:
    shared.ready(workers=8)
    key = token_hex(4)
    with Talk(shared.http) as talk:
        talk.ask("GET", f"/sse?events=100000&ms=60000&key={key}")
        assert talk.status() == 200
        pieces = talk.pieces()
        next(pieces)
        shared.restart(shared.container("rabbitmq"))
        with pytest.raises(Broken):
            list(pieces)
    eventually(lambda: said(shared, "gone", key), "the application is told", 30)
    shared.ready(workers=8)
    assert get(shared.http, "/whoami").status == 200
    at_rest(shared)


@pytest.mark.timeout(150)
def test_a_worker_that_leaves_lets_its_streams_end(shared: Deployment) -> None:
    """SIGTERM: a stream that ends by itself within the patience ends whole."""
    shared.ready(workers=8)
    key = token_hex(4)
    with Talk(shared.http) as talk:
        talk.ask("GET", f"/stream?chunks=40&ms=100&key={key}")
        assert talk.status() == 200
        pieces = talk.pieces()
        next(pieces)
        runner = shared.runner(key)
        shared.kill(runner, "SIGTERM")
        assert len(b"".join(pieces).splitlines()) == 39
    eventually(lambda: shared.look(runner).state == "exited", "the worker has left", 30)
    assert moment(shared.look(runner).started_at) < time.time()
