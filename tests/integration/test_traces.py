"""Traces on the real deployment: what a collector gets of a request, and what the application sees of its trace."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from integration.client import Answer, Call, send, volley
from integration.deployment import Deployment
from integration.polling import eventually

CALLER = "b7ad6b7169203331"
SERVER, INTERNAL = 2, 1
ERROR = 2
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def traced(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    """An edge that takes part in traces and begins none that is sampled, and a collector."""
    deployment = Deployment(
        directory,
        ("tests/integration/test_traces.yml",),
        RABBITBAL_APP_DIR=app_dir,
        RABBITBAL_TIMEOUT="3",
        RABBITBAL_TRACE="1",
        RABBITBAL_TRACE_SAMPLE="0",
        RABBITBAL_OTLP_ENDPOINT="http://collector:4318",
    )
    try:
        deployment.up(workers=1)
        yield deployment
    finally:
        deployment.down()


def ask(deployment: Deployment, target: str, trace: str, flags: str = "01") -> Answer:
    fields = (("traceparent", f"00-{trace}-{CALLER}-{flags}"), ("tracestate", "test=1"))
    return send(deployment.http, Call(target, fields=fields), 20)


def spans(deployment: Deployment, trace: str) -> list[dict[str, Any]]:
    return [s for s in deployment.events(deployment.container("collector"), "span") if s["trace"] == trace]


def collected(deployment: Deployment, trace: str, names: set[str]) -> dict[str, dict[str, Any]]:
    """The trace's spans by name, once all are there; there is one of each."""
    found = eventually(
        lambda: seen if len(seen := spans(deployment, trace)) >= len(names) else [], f"the collector has {names}", 30
    )
    assert {span["name"] for span in found} == names
    assert len(found) == len(names)
    return {span["name"]: span for span in found}


def test_a_request_is_three_spans_in_the_callers_trace(traced: Deployment) -> None:
    """Their parents, their order, and times that fit into each other and into the client's own."""
    trace, began = token_hex(16), time.time_ns()
    answer = ask(traced, "/work?ms=200&token=secret", trace)
    ended = time.time_ns()
    assert answer.status == 200
    found = collected(traced, trace, {"request", "queue", "app"})
    request, queue, app = found["request"], found["queue"], found["app"]
    assert (request["parent"], queue["parent"], app["parent"]) == (CALLER, request["id"], request["id"])
    assert (request["kind"], queue["kind"], app["kind"]) == (SERVER, INTERNAL, INTERNAL)
    # Times are told in milliseconds.
    assert began - SECOND / 100 <= request["start"] <= ended
    assert request["start"] == queue["start"] <= queue["end"] == app["start"] <= app["end"] == request["end"]
    assert app["end"] <= ended + SECOND / 100
    assert 0.19 <= (app["end"] - app["start"]) / SECOND <= 2
    said = request["attributes"]
    assert (said["http.request.method"], said["url.path"], said["http.response.status_code"]) == ("GET", "/work", 200)
    assert (said["server.address"], said["server.port"]) == traced.http
    assert (said["rabbitbal.route"], said["rabbitbal.pool"], said["rabbitbal.worker"], said["rabbitbal.attempt"]) == (
        "default",
        "default",
        answer.worker,
        1,
    )
    assert request["path"] == "/v1/traces"


def test_the_application_sees_its_run_as_the_parent(traced: Deployment) -> None:
    """The field that it is given names the trace of the client and the span `app`; the state is the client's."""
    trace = token_hex(16)
    answer = ask(traced, "/echo", trace)
    headers = {name.lower(): value for name, value in json.loads(answer.body)["headers"]}
    app = collected(traced, trace, {"request", "queue", "app"})["app"]
    assert headers["traceparent"] == f"00-{trace}-{app['id']}-01"
    assert headers["tracestate"] == "test=1"


def test_what_is_not_sampled_makes_no_spans(traced: Deployment) -> None:
    """By the client's word, or by the edge's share of the traces that it begins."""
    unsampled, sampled = token_hex(16), token_hex(16)
    fields = json.loads(ask(traced, "/echo", unsampled, flags="00").body)["headers"]
    assert dict(fields)["traceparent"].startswith(f"00-{unsampled}-")
    begun = dict(json.loads(send(traced.http, Call("/echo"), 20).body)["headers"])["traceparent"].split("-")
    assert (begun[0], begun[3]) == ("00", "00")
    # The tap reads in order: behind this one's spans there come none of those.
    ask(traced, "/echo", sampled)
    collected(traced, sampled, {"request", "queue", "app"})
    assert spans(traced, unsampled) + spans(traced, begun[1]) == []


def test_a_run_that_ends_at_its_deadline_is_an_error(traced: Deployment) -> None:
    """No response tells of it: the claim says when it began, and the edge how it ended."""
    trace = token_hex(16)
    assert ask(traced, "/work?ms=20000", trace).reason == "worker-timeout"
    found = collected(traced, trace, {"request", "queue", "app"})
    request, app = found["request"], found["app"]
    assert (request["status"], app["status"], found["queue"]["status"]) == (ERROR, ERROR, 0)
    assert (request["attributes"]["error.type"], request["attributes"]["http.response.status_code"]) == (
        "worker-timeout",
        504,
    )
    assert 2.5 < (app["end"] - app["start"]) / SECOND <= (request["end"] - request["start"]) / SECOND < 4


def test_a_dead_collector_harms_nobody(traced: Deployment) -> None:
    """Clients have their answers and the log its lines; it is told once, and spans are sent again when it is back."""
    collector, trace = traced.container("collector"), token_hex(16)
    traced.stop(collector)
    traceparent = (("traceparent", f"00-{token_hex(16)}-{CALLER}-01"),)
    key = token_hex(4)
    calls = [Call(f"/work?ms=0&key={key}-{n}", fields=traceparent) for n in range(200)]
    answers = volley(traced.http, calls, at_once=16)
    assert [answer.status for answer in answers] == [200] * 200
    eventually(
        lambda: traced.events(traced.container("tap"), "tap.traces_lost"), "the tap says that spans are lost", 30
    )
    lines = eventually(
        lambda: found if len(found := [a for a in traced.access_log() if f"key={key}-" in a["target"]]) >= 200 else [],
        "every request has its line",
    )
    assert len(lines) == 200
    traced.start(collector)
    eventually(lambda: traced.look(collector).health == "healthy", "the collector is back", 30)
    ask(traced, "/echo", trace)
    collected(traced, trace, {"request", "queue", "app"})
    tap = traced.container("tap")
    assert len(traced.events(tap, "tap.traces_lost")) == 1
    assert [line["lost"] > 0 for line in traced.events(tap, "tap.traces_taken")] == [True]
    assert not [line for line in traced.logs(tap) if '"logger": "opentelemetry' in line or "urllib3" in line]
    assert tap.health == "healthy"
