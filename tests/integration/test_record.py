"""Recording real traffic while it flows, and replaying it against pools that answer the same, differently, or not."""

import json
import os
import signal
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from integration.client import Answer, Call, Load
from integration.deployment import Deployment
from integration.polling import eventually
from rabbitbal.operator import har
from rabbitbal.wire.recording import Exchange, decode_exchange

PASSWORD, COOKIE, BEARER = (f"{name}-{token_hex(8)}" for name in ("pass", "cookie", "bearer"))
SECRETS = (PASSWORD, COOKIE, BEARER)
LINES = 60
KINDS = 7


@dataclass
class Traffic:
    """What was recorded, what the clients heard, and the route that it took."""

    route: str
    text: str
    exchanges: list[Exchange]
    counts: dict[str, Any]
    answers: dict[int, Answer]

    def of(self, path: str) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.request.target.startswith(path.encode())]


def make(route: str, number: int, tag: str = "other") -> Call:
    """Seven kinds of request, in turn. Secrets are in fields, queries and bodies."""
    query = f"n={number}&key={route}-{tag}-{number}"
    fields = (("X-Route", route), ("Authorization", f"Bearer {BEARER}"), ("Cookie", f"s={COOKIE}"))
    plain = fields[:1]
    kind = number % KINDS
    if kind == 0:
        return Call(f"/status/200?{query}&token={PASSWORD}", "GET", fields)
    if kind == 1:
        # It says what it is sent, so it is sent no secret.
        return Call(f"/echo?{query}", "GET", plain)
    if kind == 2:
        return Call(f"/status/201?{query}", "GET", fields)
    if kind == 3:
        return Call(f"/status/203?{query}", "GET", fields)
    if kind == 4:
        return Call(f"/stream?chunks=3&ms=5&{query}", "GET", fields)
    if kind == 5:
        return Call(f"/bytes/100000?{query}", "GET", fields)
    body = json.dumps({"password": PASSWORD, "n": number}).encode()
    return Call(f"/status/200?{query}", "POST", (*fields, ("Content-Type", "application/json")), body)


def number_of(exchange: Exchange) -> int:
    return int(parse_qs(urlsplit(exchange.request.target.decode()).query)["n"][0])


@pytest.fixture(scope="module")
def route(pooled: Deployment) -> str:
    """A route of this module's own, to the pool default."""
    name = f"rec{token_hex(3)}"
    pooled.ready(workers=1)
    pooled.route(f"""\
version: 1
routes:
  - {{ name: {name}, match: {{ headers: {{ X-Route: {name} }} }}, to: default }}
  - {{ name: default }}
""")
    return name


@pytest.fixture(scope="module")
def traffic(pooled: Deployment, route: str) -> Traffic:
    """Recorded out of a steady load, which began before the recording and goes on behind it."""
    with Load(pooled.http, rate=30, seconds=80, make=lambda number: make(route, number, "this")) as load:
        done = pooled.operator("record", "--route", route, "--limit", str(LINES))
        answers = load.finish()
    assert done.returncode == 0, done.stderr
    assert f"recorded {LINES} requests" in done.stderr
    lines = [decode_exchange(line) for line in done.stdout.splitlines()]
    assert isinstance(lines[-1], dict)
    exchanges = [line for line in lines if isinstance(line, Exchange)]
    by_number = {int(parse_qs(urlsplit(answer.call.target).query)["n"][0]): answer for answer in answers}
    return Traffic(route, done.stdout, exchanges, lines[-1], by_number)


def test_what_was_recorded_is_what_the_clients_saw(traffic: Traffic) -> None:
    """Each request once, with its status, its body where that is recorded, its worker, and times that make sense."""
    assert traffic.counts == {"recorded": LINES, "skipped": 0, "forgotten": 0, "end": "limit"}
    assert len({exchange.id for exchange in traffic.exchanges}) == LINES == len(traffic.exchanges)
    for exchange in traffic.exchanges:
        answer = traffic.answers[number_of(exchange)]
        assert exchange.response is not None
        assert exchange.status == answer.status == exchange.response.status
        assert (exchange.worker, exchange.pool, exchange.route) == (answer.worker, "default", traffic.route)
        assert exchange.total_ms is not None
        assert exchange.total_ms <= answer.seconds * 1000 + 50
        if exchange.response_body is None:
            assert exchange.response.body == answer.body
        else:
            assert exchange.response_body.size == len(answer.body)
    partial = {exchange.id for exchange in (*traffic.of("/bytes"), *traffic.of("/stream"))}
    assert partial == {exchange.id for exchange in traffic.exchanges if exchange.response_body is not None}
    assert {len(traffic.of(path)) > 5 for path in ("/bytes", "/stream", "/echo", "/status/201", "/status/203")} == {
        True
    }


def test_no_secret_is_in_a_recording(traffic: Traffic) -> None:
    """Neither from a field, nor a query, nor a body; in their places it says so."""
    assert not [secret for secret in SECRETS if secret in traffic.text]
    posted = [exchange for exchange in traffic.exchanges if exchange.request.method == "POST"]
    assert posted
    for exchange in posted:
        assert json.loads(exchange.request.body) == {"password": "[redacted]", "n": number_of(exchange)}
        assert (b"authorization", b"[redacted]") in [(n.lower(), v) for n, v in exchange.request.fields]


def test_an_archive_is_recorded(pooled: Deployment, route: str) -> None:
    """It has the members that HAR 1.2 asks for, no secret, and reads back; one path alone was asked for."""
    with Load(pooled.http, rate=30, seconds=80, make=lambda number: make(route, number)):
        done = pooled.operator("record", "--har", "--route", route, "--path", "/status", "--limit", "20")
    assert done.returncode == 0, done.stderr
    assert not [secret for secret in SECRETS if secret in done.stdout]
    log = json.loads(done.stdout)["log"]
    assert (log["version"], len(log["entries"])) == ("1.2", 20)
    for entry in log["entries"]:
        assert {"startedDateTime", "time", "request", "response", "cache", "timings"} <= entry.keys()
        assert {"method", "url", "httpVersion", "cookies", "headers", "queryString"} <= entry["request"].keys()
        assert entry["request"]["url"].startswith("http://127.0.0.1")
        assert {"status", "statusText", "content", "redirectURL", "bodySize"} <= entry["response"].keys()
        assert entry["response"]["content"]["text"].startswith(str(entry["response"]["status"]))
    exchanges = har.read(done.stdout)
    assert {exchange.request.target.split(b"?")[0] for exchange in exchanges} <= {
        b"/status/200",
        b"/status/201",
        b"/status/203",
    }
    replayed = pooled.operator("replay", "-", "--pool", "default", "--rate", "max", "--json", stdin=done.stdout)
    assert replayed.returncode == 0, replayed.stdout
    assert json.loads(replayed.stdout)["same"] > 10


def replay(pooled: Deployment, traffic: Traffic, *options: str) -> "subprocess.CompletedProcess[str]":
    return pooled.operator("replay", "-", *options, stdin=traffic.text)


def test_the_same_pool_answers_the_same(pooled: Deployment, traffic: Traffic) -> None:
    """Also what was streamed, as far as its size is known. Only GET is sent: no POST runs again. The tap sees replays
    as it sees all requests, each with its ending."""
    posts = [exchange for exchange in traffic.exchanges if exchange.request.method == "POST"]
    before = len([line for line in pooled.access_log() if line.get("route") == "replay"])
    done = replay(pooled, traffic, "--pool", "default", "--rate", "50/s", "--diff", "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    found = json.loads(done.stdout)
    gets = LINES - len(posts)
    assert (found["same"], found["replayed"], found["different"], found["failed"]) == (gets, gets, 0, {})
    assert (found["differences"], found["left_out"]) == ([], {"POST": len(posts)})
    streamed = len(traffic.of("/bytes")) + len(traffic.of("/stream"))
    assert found["body_unknown"] == {"size only": streamed}
    assert f"left out, as they may change something: POST {len(posts)}" in done.stderr
    assert gets / 50 - 0.1 <= found["seconds"] < gets / 50 + 5
    assert found["latency_ms"]["replayed_whole"]["p50"] > 0
    assert {pooled.runs_everywhere()[f"{traffic.route}-this-{number_of(exchange)}"] for exchange in posts} == {1}

    def seen() -> list[dict[str, Any]]:
        return [line for line in pooled.access_log() if line.get("route") == "replay"][before:]

    eventually(lambda: len(seen()) == gets, "the tap has a line for each")
    assert {(line["reason"], line["pool"], line["edge"][:7]) for line in seen()} == {(None, "default", "replay-")}
    (notice,) = pooled.notices("pool.replayed", "the tests")[-1:]
    assert (notice["pool"], notice["requests"]) == ("default", gets)


def test_another_application_differs_in_what_is_other_there(pooled: Deployment, traffic: Traffic) -> None:
    """A status, a field, a member of a JSON body, and the size of a stream; nothing else."""
    done = replay(pooled, traffic, "--pool", "canary", "--rate", "max", "--diff", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    expected = {
        "/status/201": {("status", "status", "201", "202")},
        "/status/203": {("header", "x-canary", None, "tweet")},
        "/echo": {("body", "$.method", '"GET"', '"PUT"')},
        "/stream": {("body", "size", "39 bytes", "33 bytes")},
    }
    told: dict[str, set[tuple[str | None, ...]]] = {}
    for each in found["differences"]:
        differences = {tuple(difference.values()) for difference in each["differences"]}
        told.setdefault(urlsplit(each["target"]).path, set()).update(differences)
    assert told == expected
    number = {path: len(traffic.of(path)) for path in expected}
    assert found["different"] == sum(number.values())
    assert found["different_by"] == {
        "status": number["/status/201"],
        "header": number["/status/203"],
        "body": number["/echo"] + number["/stream"],
    }
    assert found["failed"] == {}
    table = replay(pooled, traffic, "--pool", "canary", "--rate", "max", "--diff", "--limit", "12")
    assert table.returncode == 1
    assert "status: 201 → 202" in table.stdout
    assert "header x-canary: - → tweet" in table.stdout


def test_fields_are_set_anew_and_other_methods_sent_when_they_are_named(pooled: Deployment, traffic: Traffic) -> None:
    """What was redacted can be sent again, and it is said what a POST does."""
    wanted = replay(
        pooled, traffic, "--pool", "default", "--rate", "max", "--methods", "POST", "--header", "Authorization: Basic x"
    )
    assert wanted.returncode == 0, wanted.stderr
    assert "POST: what these requests did when they were recorded, they do again" in wanted.stderr
    posts = [exchange for exchange in traffic.exchanges if exchange.request.method == "POST"]
    eventually(
        lambda: {pooled.runs_everywhere()[f"{traffic.route}-this-{number_of(exchange)}"] for exchange in posts} == {2},
        "each ran once more",
    )
    other = replay(pooled, traffic, "--pool", "default", "--rate", "max", "--host", "new.example", "--diff", "--json")
    assert other.returncode == 1
    changed = json.loads(other.stdout)["differences"]
    assert changed
    assert {urlsplit(each["target"]).path for each in changed} == {"/echo"}
    assert "new.example" in json.dumps(changed)


def test_ctrl_c_ends_a_recording_with_a_whole_file(pooled: Deployment, route: str) -> None:
    with Load(pooled.http, rate=30, seconds=80, make=lambda number: make(route, number)):
        command = pooled.operating("record", "--route", route)
        assert command.stdout is not None
        first = command.stdout.readline()
        os.killpg(command.pid, signal.SIGINT)
        rest, said = command.communicate(timeout=30)
    lines = [decode_exchange(line) for line in (first + rest).splitlines()]
    assert isinstance(lines[-1], dict), said
    assert (lines[-1]["end"], lines[-1]["recorded"]) == ("interrupted", len(lines) - 1)
    assert all(isinstance(line, Exchange) for line in lines[:-1])


def test_ctrl_c_ends_a_replay_with_what_is_known(pooled: Deployment, route: str) -> None:
    """Its requests are cancelled, and their workers stop. It says how far it came."""
    key = f"slow-{token_hex(3)}"
    text = har.HEAD + json.dumps(entry(f"http://h/work?ms=60000&key={key}")) + har.TAIL
    command = pooled.operating("replay", "-", "--pool", "default", "--json")
    assert command.stdin is not None
    command.stdin.write(text)
    command.stdin.close()
    command.stdin = None
    eventually(lambda: pooled.runs()[key], "a worker runs it", 30)
    os.killpg(command.pid, signal.SIGINT)
    out, said = command.communicate(timeout=30)
    found = json.loads(out)
    assert (found["interrupted"], found["replayed"]) == (True, 0)
    assert "interrupted after 1 requests" in said
    assert command.returncode == 1
    eventually(lambda: pooled.events_of("worker", "gone", key), "the worker was told")
    (line,) = eventually(lambda: pooled.access(key), "the tap has its ending")
    assert line["reason"] == "client-gone"


def entry(url: str) -> dict[str, Any]:
    """As a browser writes it."""
    return {
        "startedDateTime": "2025-01-01T00:00:00.000Z",
        "time": 1,
        "request": {"method": "GET", "url": url, "httpVersion": "HTTP/1.1", "headers": []},
        "response": {"status": 200, "headers": [], "content": {"size": 0, "mimeType": "x/y"}},
        "timings": {"send": 0, "wait": 1, "receive": 0},
    }


def test_what_cannot_be_replayed_ends_in_a_word(pooled: Deployment, traffic: Traffic) -> None:
    """A pool without workers, no such pool, a file that is cut off. Nothing hangs."""
    for options, status, words in (
        (("--pool", "void"), 1, "void has no workers: nothing was sent"),
        (("--pool", "nowhere"), 1, "nowhere"),
        (("--pool", "default", "--rate", "fast"), 2, "must read like"),
    ):
        done = replay(pooled, traffic, *options)
        assert (done.returncode, words in done.stderr) == (status, True), done.stderr
    cut = pooled.operator("replay", "-", "--pool", "default", stdin=traffic.text[:-5000])
    assert cut.returncode == 2
    assert "not JSON; is the file cut off?" in cut.stderr
    assert cut.stderr.startswith("rabbitbal: standard input:")


def test_requests_that_nobody_answers_fail_by_reason(pooled: Deployment, traffic: Traffic) -> None:
    """The pool's only worker holds its requests for ever; each ends at its time."""
    text = har.HEAD + ",".join(json.dumps(entry(f"http://h/probe/hold?key=h{n}")) for n in range(3)) + har.TAIL
    done = pooled.operator("replay", "-", "--pool", "canary", "--rate", "max", "--timeout", "2", "--json", stdin=text)
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == {"worker-timeout": 3}


def test_few_may_record_at_a_time(pooled: Deployment) -> None:
    """The fifth is refused; when the others are through, there is room again."""
    said: list[Counter[int]] = []

    def five() -> None:
        commands = [pooled.operating("record", "--seconds", "6") for _ in range(5)]
        for command in commands:
            command.communicate(timeout=60)
        said.append(Counter(command.returncode for command in commands))

    thread = threading.Thread(target=five)
    thread.start()
    thread.join()
    assert said == [Counter({0: 4, 1: 1})]
    assert pooled.operator("record", "--seconds", "0.5").returncode == 0
