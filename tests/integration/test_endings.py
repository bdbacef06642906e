"""Every way a request can end without an application's answer: what the client hears, and what the log says of it.

`worker-lost` and `poison` are in test_worker_loss.py.
"""

import socket
import time
from secrets import token_hex

import pytest

from integration.client import Address, Answer, Background, Call, get, raw, send, volley
from integration.deployment import Deployment
from integration.polling import eventually

LIMIT = 100_000
TIMEOUT = 4.0
SLOTS, PLACES = 2, 3


@pytest.fixture
def ready(strict: Deployment) -> Deployment:
    strict.ready(workers=1)
    return strict


@pytest.fixture
def http(ready: Deployment) -> Address:
    return ready.http


@pytest.fixture
def edge(ready: Deployment) -> Address:
    return ready.container("edge").addresses["front"], 8000


@pytest.fixture
def key() -> str:
    return token_hex(4)


def head(message: str) -> bytes:
    return message.replace("\n", "\r\n").encode() + b"\r\n\r\n"


def refused(answer: bytes) -> tuple[int, str]:
    """Status and Rabbitbal-Error of a raw response."""
    lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").lower().split("\r\n")
    reasons = [line.partition(":")[2].strip() for line in lines if line.startswith("rabbitbal-error:")]
    assert len(reasons) == 1, answer
    return int(lines[0].split()[1]), reasons[0]


def logged(deployment: Deployment, key: str) -> tuple[int, str, int]:
    """Status, reason and attempt of the request's one access line."""
    line = deployment.ended(key)
    return line["status"], line["reason"], line["attempt"]


def assert_says_so(answer: Answer) -> None:
    """The body is for people, and no cache may keep it."""
    assert answer.body.decode().startswith(f"rabbitbal: {answer.reason}: ")
    assert answer.first("Cache-Control") == "no-store"


@pytest.mark.parametrize("at", ["http", "edge"])
@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"garbage\r\n\r\n", id="no HTTP at all"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", id="a TLS greeting"),
        pytest.param(head("GET / HTTP/1.1"), id="no Host"),
        pytest.param(head("GET / HTTP/1.1\nHost: a\nHost: b"), id="two Hosts"),
        pytest.param(head("GET / HTTP/1.1\nHost: a\nNo colon"), id="a field without a colon"),
        pytest.param(head("GET / HTTP/1.1\nHost: a\nBad name: x"), id="a field name with a space"),
        pytest.param(head("GET / HTTP/1.1\nHost: a\nX: a\x00b"), id="a NUL in a value"),
        pytest.param(
            head("POST / HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 4") + b"abcd", id="two lengths"
        ),
        pytest.param(head("POST / HTTP/1.1\nHost: a\nContent-Length: -1"), id="a negative length"),
        pytest.param(
            head("POST / HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked") + b"0\r\n\r\n",
            id="a length and chunks",
        ),
        pytest.param(head("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked") + b"zz\r\n\r\n", id="a bad chunk"),
    ],
)
def test_bytes_that_are_not_http_are_a_bad_request(at: str, message: bytes, request: pytest.FixtureRequest) -> None:
    """400 `bad-request`, from nginx and from an edge without nginx before it."""
    assert refused(raw(request.getfixturevalue(at), message)) == (400, "bad-request")


@pytest.mark.parametrize("at", ["http", "edge"])
@pytest.mark.parametrize(
    "fields",
    [[("X-Long", "x" * 20_000)] * 2, [(f"X-{n}", "x" * 10_000) for n in range(4)]],
    ids=["long lines", "many lines"],
)
def test_a_head_over_the_limit_is_refused(
    at: str, fields: list[tuple[str, str]], request: pytest.FixtureRequest
) -> None:
    """431 `header-too-large`: more than 32 KiB in all."""
    answer = send(request.getfixturevalue(at), Call("/whoami", fields=tuple(fields)))
    assert answer.ending == "431 header-too-large"


@pytest.mark.parametrize("at", ["http", "edge"])
@pytest.mark.parametrize("length", [8193, 20_000])
def test_a_target_over_the_limit_is_refused(at: str, length: int, request: pytest.FixtureRequest) -> None:
    """414 `target-too-long`: more than 8 KiB; one byte less passes."""
    address = request.getfixturevalue(at)
    assert get(address, "/whoami?".ljust(length, "x")).ending == "414 target-too-long"
    assert get(address, "/whoami?".ljust(8192, "x")).status == 200


@pytest.mark.parametrize("at", ["http", "edge"])
def test_a_body_over_the_limit_is_refused(at: str, request: pytest.FixtureRequest) -> None:
    """413 `body-too-large`, by its declared length before it is sent; one byte less passes."""
    address = request.getfixturevalue(at)
    assert send(address, Call("/echo", "POST", body=b"x" * LIMIT)).status == 200
    declared = head(f"POST /echo HTTP/1.1\nHost: a\nContent-Length: {LIMIT + 1}")
    assert refused(raw(address, declared, until=b"body-too-large: ")) == (413, "body-too-large")


@pytest.mark.parametrize("at", ["http", "edge"])
def test_a_chunked_body_over_the_limit_is_refused(at: str, request: pytest.FixtureRequest) -> None:
    """413 `body-too-large`, as soon as it is too large."""
    message = head("POST /echo HTTP/1.1\nHost: a\nTransfer-Encoding: chunked")
    message += b"".join(b"4e20\r\n" + b"x" * 20_000 + b"\r\n" for _ in range(6)) + b"0\r\n\r\n"
    answer = raw(request.getfixturevalue(at), message, until=b"body-too-large: ")
    assert refused(answer) == (413, "body-too-large")


def test_an_application_that_raises_is_an_app_error(ready: Deployment, key: str) -> None:
    """500 `app-error`; the worker logs the traceback and serves on; a POST is not repeated."""
    answer = send(ready.http, Call(f"/probe/raises?key={key}", "POST"))
    assert answer.ending == "500 app-error"
    assert_says_so(answer)
    assert logged(ready, key) == (500, "app-error", 1)
    assert ready.runs()[key] == 1
    assert any("as the test wanted" in line for line in ready.logs(ready.container("worker")))


@pytest.mark.parametrize("page", ["silent", "short"])
def test_an_application_that_breaks_the_protocol_is_a_bad_response(ready: Deployment, key: str, page: str) -> None:
    """502 `bad-response`: it returned without a response, or its body is not as long as it said."""
    answer = get(ready.http, f"/probe/{page}?key={key}")
    assert answer.ending == "502 bad-response"
    assert_says_so(answer)
    assert logged(ready, key) == (502, "bad-response", 1)


def test_a_request_that_no_worker_takes_in_time_never_runs(ready: Deployment, key: str) -> None:
    """504 `queue-timeout` for those that waited longer than the timeout while all slots were taken; 504
    `worker-timeout` for those that held the slots, whose work is cancelled. Afterwards the slots are free."""
    slots, queue = [[f"{key}-{kind}-{n}" for n in range(SLOTS)] for kind in ("slot", "queue")]
    # An application that needs long to clean up, so that its slot is taken beyond its deadline.
    holding = Background(ready.http, *[Call(f"/probe/stubborn?key={name}") for name in slots])
    eventually(lambda: ready.runs().keys() >= set(slots), "all slots are taken", 3)
    waiting = Background(ready.http, *[Call(f"/work?key={name}", ("GET", "POST")[n]) for n, name in enumerate(queue)])
    held, waited = holding.answers(), waiting.answers()
    assert [answer.ending for answer in held] == ["504 worker-timeout"] * SLOTS
    assert [answer.ending for answer in waited] == ["504 queue-timeout"] * SLOTS
    for answer in held + waited:
        assert_says_so(answer)
        assert TIMEOUT - 0.2 < answer.seconds < TIMEOUT + 1
    # It is told first that nobody waits, and gets a moment to stop by itself.
    eventually(lambda: all(ready.keys("cancelled")[name] == 1 for name in slots), "the application is cancelled", 3)
    assert {logged(ready, name) for name in slots} == {(504, "worker-timeout", 1)}
    assert {logged(ready, name) for name in queue} == {(504, "queue-timeout", 1)}
    # What comes now is behind those two in the queue, and runs when the slots are free.
    assert get(ready.http, f"/work?key={key}-after").status == 200
    assert {name: n for name, n in ready.runs().items() if key in name} == dict.fromkeys([*slots, f"{key}-after"], 1)


def test_a_request_behind_its_deadline_is_not_run_by_a_worker_that_comes_late(ready: Deployment, key: str) -> None:
    """504 `queue-timeout` while no worker is there; the worker that comes afterwards finds nothing to run."""
    worker = ready.container("worker")
    ready.stop(worker)
    answer = get(ready.http, f"/work?key={key}")
    assert answer.ending == "504 queue-timeout"
    assert_says_so(answer)
    assert TIMEOUT - 0.2 < answer.seconds < TIMEOUT + 1
    assert logged(ready, key) == (504, "queue-timeout", 1)
    ready.start(worker)
    ready.ready(workers=1)
    assert get(ready.http, f"/work?key={key}-after").status == 200
    assert ready.runs()[key] == 0
    assert ready.runs()[f"{key}-after"] == 1


def test_what_finds_the_queue_full_is_refused_at_once(ready: Deployment, key: str) -> None:
    """503 `overloaded` with Retry-After, and only when the slots and the places in the queue are all taken."""
    holding = Background(ready.http, *[Call(f"/work?ms=2500&key={key}-slot-{n}") for n in range(SLOTS)])
    eventually(lambda: sum(key in found for found in ready.runs()) == SLOTS, "all slots are taken", 3)
    waiting = Background(ready.http, *[Call(f"/work?ms=1&key={key}-queue-{n}") for n in range(PLACES)])
    eventually(lambda: ready.queues()["pool.default"]["messages_ready"] == PLACES, "the queue is full", 3)
    answers = volley(ready.http, [Call(f"/work?key={key}-late-{n}", ("GET", "POST")[n % 2]) for n in range(10)], 5)
    assert not holding.done
    for answer in answers:
        assert answer.ending == "503 overloaded"
        assert_says_so(answer)
        assert answer.seconds < 1
        assert 1 <= int(answer.first("Retry-After") or "") <= 120
    assert {answer.ending for answer in holding.answers() + waiting.answers()} == {"200"}
    assert logged(ready, f"{key}-late-0")[:2] == (503, "overloaded")
    runs = ready.runs()
    assert sum(number for found, number in runs.items() if f"{key}-late" in found) == 0
    assert sum(number for found, number in runs.items() if key in found) == SLOTS + PLACES


@pytest.mark.parametrize("at", ["http", "edge"])
@pytest.mark.parametrize("body", [b"", b"some"], ids=["no body", "a body"])
def test_when_the_client_leaves_its_work_is_cancelled(
    ready: Deployment, key: str, at: str, body: bytes, request: pytest.FixtureRequest
) -> None:
    """499 `client-gone` in the log, long before the deadline; the application is cancelled and the slot is free."""
    with socket.create_connection(request.getfixturevalue(at), timeout=5) as connection:
        connection.sendall(Call(f"/probe/hold?key={key}", "POST", body=body).encode(("h", 1)))
        eventually(lambda: ready.runs()[key] == 1, "it runs", 3)
        # Claimed after 0.1 s: then the edge knows whom to send the cancel.
    left = time.monotonic()
    eventually(lambda: ready.keys("cancelled")[key] == 1, "the application is cancelled", 3)
    assert time.monotonic() - left < 2
    assert logged(ready, key) == (499, "client-gone", 1)
    assert ready.stats()["pending"] == 0


def test_a_client_that_leaves_before_its_request_is_whole_costs_nothing(ready: Deployment, edge: Address) -> None:
    """Nothing is published and nothing is kept."""
    before = ready.stats()["endings"]
    with socket.create_connection(edge, timeout=5) as connection:
        connection.sendall(head("POST /whoami HTTP/1.1\nHost: a\nContent-Length: 10") + b"half")
    assert get(edge, "/whoami").status == 200
    after = ready.stats()
    assert after["pending"] == 0
    assert after["endings"].get("answered", 0) == before.get("answered", 0) + 1


def test_without_a_pool_on_its_route_a_request_is_unroutable(ready: Deployment, key: str) -> None:
    """503 `unroutable` with Retry-After after the grace; bound again within the grace, it is carried."""
    unbind(ready)
    try:
        answer = get(ready.http, f"/work?key={key}")
        assert answer.ending == "503 unroutable"
        assert_says_so(answer)
        assert 2.9 < answer.seconds < TIMEOUT
        assert int(answer.first("Retry-After") or "") >= 1
        assert ready.runs()[key] == 0
        assert logged(ready, key) == (503, "unroutable", 1)
        patient = Background(ready.http, Call(f"/work?key={key}-patient", "POST"))
    finally:
        bind(ready)
    assert patient.answer().status == 200
    assert ready.runs()[f"{key}-patient"] == 1


ROUTES = 'rabbit_binding:list_for_source(rabbit_misc:r(<<"/">>, exchange, <<"rabbitbal.requests">>))'


def unbind(deployment: Deployment) -> None:
    """Take every pool off its route, as an operator would who moves capacity."""
    deployment.rabbitmqctl(
        "eval",
        f'Bs = {ROUTES}, persistent_term:put(test_routes, Bs), [rabbit_binding:remove(B, <<"test">>) || B <- Bs].',
    )


def bind(deployment: Deployment) -> None:
    deployment.rabbitmqctl("eval", '[rabbit_binding:add(B, <<"test">>) || B <- persistent_term:get(test_routes)].')


def test_workers_join_again_when_their_queue_was_deleted_and_declared(ready: Deployment, key: str) -> None:
    """The broker cancels a worker's consumer with the queue. The worker notices, and serves again once the topology
    job has run, by itself. A request in between has an honest ending."""
    worker = ready.container("worker")
    ready.rabbitmqctl("delete_queue", "pool.default")
    try:
        eventually(lambda: ready.events(worker, "pool.lost"), "the worker notices", 5)
        answer = get(ready.http, f"/work?key={key}-between")
        assert answer.status in (503, 504)
        assert answer.reason in ("unroutable", "queue-timeout")
    finally:
        ready.declare()
    eventually(lambda: ready.consumers() == 1, "the worker joins again", 10)
    assert get(ready.http, f"/work?key={key}").status == 200
    assert ready.runs()[key] == 1
    assert ready.runs()[f"{key}-between"] == 0
    assert ready.look(worker).started_at == worker.started_at


@pytest.mark.timeout(120)
def test_a_broker_that_stays_away_is_told_of(ready: Deployment, key: str) -> None:
    """503 `broker-down` with Retry-After, after the grace of 1 s, for what was never sent; when it is back all is well
    without a restart of anything else."""
    broker = ready.container("rabbitmq")
    others = [ready.container(service) for service in ("edge", "worker", "tap", "nginx")]
    held = Background(ready.http, Call(f"/probe/hold?key={key}", "POST"))
    ready.runner(key)
    ready.stop(broker)
    assert held.answer().ending == "502 worker-lost"
    answers = volley(ready.http, [Call(f"/work?key={key}-{n}", ("GET", "POST")[n % 2]) for n in range(6)], 6)
    for answer in answers:
        assert answer.ending == "503 broker-down"
        assert_says_so(answer)
        assert answer.seconds < 2.5
        assert int(answer.first("Retry-After") or "") >= 1
    stats = ready.stats()
    assert stats["pending"] == 0
    assert stats["endings"]["broker-down"] >= 6
    ready.start(broker)
    ready.ready(workers=1)
    assert get(ready.http, f"/work?key={key}-after").status == 200
    assert {k: n for k, n in ready.runs().items() if key in k} == {key: 1, f"{key}-after": 1}
    assert [ready.look(other).started_at for other in others] == [other.started_at for other in others]
