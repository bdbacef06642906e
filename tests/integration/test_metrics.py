"""Figures of edges and workers, and what is made of them: metrics, the autoscaler's figure, and a real Prometheus with
the rules and the dashboard of this repository."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from prometheus_client.parser import text_string_to_metric_families

from integration.client import Address, Answer, Call, Load, get, volley
from integration.deployment import ROOT, Deployment
from integration.polling import eventually

OVERLAY = "compose/metrics.yml"
WORKERS = 2
SLOTS = 2
DASHBOARD = json.loads((ROOT / "compose" / "grafana" / "dashboard.json").read_text())
# What it stands for is Grafana's to say; it is four scrapes at least.
INTERVAL = "1m"
# The threshold of an alert, which every expression ends in: what is before it has a value whether it is reached or not.
THRESHOLD = re.compile(r" [<>] [0-9.]+$")

# Run inside the tap, with its own secret.
ASKING = """
import asyncio, json
from pathlib import Path
from rabbitbal.runtime import logs
from rabbitbal.runtime.broker import Server
from rabbitbal.tap.depth import Depths

async def main():
    logs.configure("tap", "test", "info")
    server = Server("amqp://tap@rabbitmq:5672/", Path("/run/secrets/tap/password"))
    depths = Depths(server, "test", {"absent": False, "missing": True, "default": False}, list)
    asking = asyncio.create_task(depths.run())
    async with asyncio.timeout(20):
        while not depths.ready:
            await asyncio.sleep(0.05)
    asking.cancel()
    print(json.dumps(depths.ready))

asyncio.run(main())
"""

Samples = dict[tuple[tuple[str, str], ...], float]


@pytest.fixture(scope="module")
def measured(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    """Two workers of two slots, and Prometheus."""
    deployment = Deployment(
        directory,
        (OVERLAY,),
        RABBITBAL_APP_DIR=app_dir,
        RABBITBAL_APP="probe:app",
        RABBITBAL_CONCURRENCY=str(SLOTS),
        RABBITBAL_PROMETHEUS_PORT="0",
        RABBITBAL_TIMEOUT="60",
    )
    try:
        deployment.build("prometheus")
        deployment.up(workers=WORKERS)
        yield deployment
    finally:
        deployment.down()


def address(deployment: Deployment, service: str, port: int) -> Address:
    (found,) = deployment.containers(service)
    return "127.0.0.1", int(found.ports[f"{port}/tcp"][0]["HostPort"])


def told(deployment: Deployment, target: str) -> Answer:
    answer = get(address(deployment, "tap", 8081), target, 10)
    assert answer.status == 200, (target, answer.status, answer.body[:500])
    return answer


def samples(deployment: Deployment) -> dict[str, Samples]:
    found: dict[str, Samples] = {}
    for family in text_string_to_metric_families(told(deployment, "/metrics").body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def need(deployment: Deployment) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told(deployment, "/api/autoscale").body)["pools"].get("default", {})
    return found


def asked(deployment: Deployment, path: str, **query: str) -> Any:
    """Prometheus' own answer."""
    target = f"/api/v1/{path}" + (f"?{urlencode(query)}" if query else "")
    answer = get(address(deployment, "prometheus", 9090), target, 10)
    found = json.loads(answer.body)
    assert found["status"] == "success", (target, found)
    return found["data"]


def values(deployment: Deployment, expression: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = asked(deployment, "query", query=expression)["result"]
    return [one for one in result if one["value"][1] != "NaN"]


def test_figures_of_the_edge_and_of_both_workers_arrive(measured: Deployment) -> None:
    """At the tap, over the broker: each worker's slots, what it has done, how long that took."""
    measured.ready(workers=WORKERS)
    eventually(lambda: samples(measured).get("rabbitbal_workers") == {(): WORKERS}, "both workers are seen", 30)
    before = sum(samples(measured).get("rabbitbal_worker_requests_total", {}).values())
    closed = sum(samples(measured)["rabbitbal_edge_requests_closed_total"].values())
    answers = volley(measured.http, [Call("/work?ms=20")] * 60, at_once=4)
    assert {answer.status for answer in answers} == {200}

    def counted() -> dict[str, Samples] | None:
        found = samples(measured)
        done = sum(found["rabbitbal_worker_requests_total"].values()) - before
        ended = sum(found["rabbitbal_edge_requests_closed_total"].values()) - closed
        # Those that asked whether the deployment answers may be in the same figures.
        return found if done >= 60 and ended >= 60 else None

    found = eventually(counted, "the 60 requests are in the figures of edge and workers", 20)
    assert found is not None
    assert found["rabbitbal_edges"] == {(): 1}
    assert sorted(found["rabbitbal_worker_slots"].values()) == [SLOTS] * WORKERS
    assert sum(found["rabbitbal_worker_slot_seconds_total"].values()) >= 60 * 0.02
    assert all(value > 10_000_000 for value in found["rabbitbal_worker_resident_memory_bytes"].values())
    assert found["rabbitbal_edge_requests_opened_total"] == found["rabbitbal_edge_requests_closed_total"]
    assert set(found["rabbitbal_edge_endings_untold_total"].values()) == {0}
    pool = (("pool", "default"),)
    assert found["rabbitbal_pool_queue_messages"][pool] == 0
    assert found["rabbitbal_pool_slots"][pool] == SLOTS * WORKERS
    assert found["rabbitbal_request_duration_seconds_count"][(("route", "default"),)] >= 60


def test_desired_workers_rise_under_load_and_fall_behind_it(measured: Deployment) -> None:
    """25 requests a second of 0.3 s need 7.5 slots, of which there are 4: 5 workers, and more for what waits."""
    measured.ready(workers=WORKERS)
    with Load(measured.http, rate=25, seconds=40, make=lambda number: Call(f"/work?ms=300&n={number}")) as load:
        found = eventually(lambda: (n := need(measured)) and n["desired"] >= 5 and n, "five are needed", 35)
        assert isinstance(found, dict)
        print(f"under load: {found}")
        assert found["workers"] == WORKERS
        assert found["waiting"] > 0
        shown = samples(measured)["rabbitbal_desired_workers"][(("pool", "default"),)]
        assert shown >= 5
        load.finish()
    eventually(lambda: need(measured)["waiting"] == 0, "the queue is empty", 60)
    eventually(lambda: need(measured)["desired"] <= 1, "nothing is needed any longer", 60)


def test_a_worker_that_leaves_has_no_series_any_longer(measured: Deployment) -> None:
    """At once when it says so; a drained one stays, without slots to offer."""
    measured.ready(workers=WORKERS)
    eventually(lambda: samples(measured)["rabbitbal_workers"] == {(): WORKERS}, "both workers are seen", 30)
    measured.scale(worker=1)
    eventually(lambda: samples(measured)["rabbitbal_workers"] == {(): 1}, "one has left", 30)
    (labels,) = samples(measured)["rabbitbal_worker_requests_running"]
    worker = dict(labels)["worker"]
    measured.operate("drain", worker)
    pool = (("pool", "default"),)
    eventually(lambda: samples(measured)["rabbitbal_pool_workers_drained"][pool] == 1, "it is drained", 15)
    assert samples(measured)["rabbitbal_pool_slots"][pool] == 0
    measured.operate("resume", worker)
    eventually(lambda: samples(measured)["rabbitbal_pool_slots"][pool] == SLOTS, "it takes requests again", 15)
    measured.ready(workers=WORKERS)


def test_nothing_listens_on_a_worker_still(measured: Deployment) -> None:
    """Its figures go the way of its answers."""
    measured.ready(workers=WORKERS)
    for worker in measured.workers():
        for table in ("tcp", "tcp6"):
            lines = measured.exec(worker, "cat", f"/proc/net/{table}").splitlines()[1:]
            # 0A: it listens. 127.0.0.11 is the engine's own name server.
            own = [line.split() for line in lines if not line.split()[1].startswith("0B00007F")]
            assert [columns[1] for columns in own if columns[3] == "0A"] == []


@pytest.mark.timeout(300)
def test_prometheus_answers_every_expression_of_the_rules_and_of_the_dashboard(measured: Deployment) -> None:
    """With data, once there was traffic of all kinds. No alert's expression is in error."""
    measured.ready(workers=WORKERS)
    rules = [rule for group in asked(measured, "rules")["groups"] for rule in group["rules"]]
    assert len(rules) == (ROOT / "compose" / "prometheus" / "rules.yml").read_text().count("- alert:")
    assert all(THRESHOLD.search(rule["query"]) for rule in rules)
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    assert len(targets) >= 40
    expressions = {THRESHOLD.sub("", rule["query"]) for rule in rules}
    expressions |= {target.replace("$__rate_interval", INTERVAL) for target in targets}
    calls = [Call("/work?ms=5"), Call("/bytes/2000"), Call("/status/500"), Call("/probe/raises")]
    calls += [Call("/echo", "POST", body=b"x" * 500)]

    def empty() -> list[str]:
        volley(measured.http, calls * 4, at_once=4)
        return [one for one in sorted(expressions) if not values(measured, one)]

    began = time.monotonic()
    eventually(lambda: empty() == [], "every expression has data", 90, 2.0)
    print(f"{len(expressions)} expressions had data after {time.monotonic() - began:.0f} s")
    health = {rule["name"]: rule["health"] for group in asked(measured, "rules")["groups"] for rule in group["rules"]}
    assert set(health.values()) == {"ok"}
    assert asked(measured, "targets")["activeTargets"][0]["health"] == "up"


def test_prometheus_runs_without_rights(measured: Deployment) -> None:
    """Not as root, on a file system that it cannot write, on the tap's network only, published on the loopback."""
    prometheus = measured.container("prometheus")
    assert measured.exec(prometheus, "id", "-u").strip() != "0"
    with pytest.raises(AssertionError, match="Read-only"):
        measured.exec(prometheus, "touch", "/etc/prometheus/x")
    assert set(prometheus.addresses) == {"watch"}
    assert [port["HostIp"] for port in prometheus.ports["9090/tcp"]] == ["127.0.0.1"]


def test_a_queue_that_is_missing_is_no_noise(measured: Deployment) -> None:
    """The broker closes a channel for the question. Nobody logs anything, and the other queues are known."""
    answer = measured.exec(measured.container("tap"), "python", "-c", ASKING)
    *lines, last = answer.splitlines()
    assert json.loads(last) == {"default": 0}
    assert [line for line in lines if "broker.connected" not in line] == []
