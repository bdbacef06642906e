"""Malformed HTTP and malformed messages, thousands of each: nothing crashes, nothing hangs, no slot is lost."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from integration.client import Address
from integration.deployment import Deployment, Meanwhile
from integration.malformed.health import Health, instance
from integration.malformed.peer import dead, play
from integration.malformed.requests import requests
from integration.malformed.visit import Visit, visits

SEED = int(os.environ.get("MALFORMED_SEED", "1"))
WORKERS, SLOTS = 2, 4
TIMEOUT = 4
# Of what a hostile peer took off the queue, an edge knows after its timeout. The rest is patience.
DEADLINE = 3 * TIMEOUT + 10

HTTP_CASES = 2500
AMQP_REQUESTS, AMQP_NOTICES, AMQP_REPLIES = 800, 1600, 2500
FAULTS_SHOWN = 8

# Statuses of 500 and more that name themselves in `Rabbitbal-Error`, and are not a defect.
NAMED = {
    "bad-request",  # 501 and 505
    "app-error",
    "bad-response",
    "overloaded",
    "unroutable",
    "queue-timeout",
    "worker-timeout",
    "worker-lost",
    "poison",
}


@pytest.fixture(scope="module")
def deployment(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    deployment = Deployment(
        directory,
        RABBITBAL_APP_DIR=app_dir,
        RABBITBAL_APP="probe:app",
        RABBITBAL_CONCURRENCY=str(SLOTS),
        RABBITBAL_TIMEOUT=str(TIMEOUT),
        RABBITBAL_BODY_LIMIT="1000000",
    )
    try:
        deployment.up(workers=WORKERS)
        yield deployment
    finally:
        deployment.down()


@pytest.fixture
def health(deployment: Deployment) -> Health:
    deployment.ready(workers=WORKERS)
    print(f"MALFORMED_SEED={SEED}")
    return Health(deployment, WORKERS * SLOTS)


@pytest.fixture
def http(deployment: Deployment) -> Address:
    return deployment.http


@pytest.fixture
def edge(deployment: Deployment) -> Address:
    return deployment.container("edge").addresses["front"], 8000


def told(found: list[Visit], seconds: float) -> None:
    """All have ended, and no answer is a defect's."""
    print(f"{len(found)} in {seconds:.1f} s, slowest {max(each.seconds for each in found):.1f} s")
    print(Counter(each.ending for each in found).most_common(25))
    faults = [each for each in found if not each.ended or each.faults or not NAMED.issuperset(_named(each))]
    if faults:
        shown = "\n\n".join(map(str, faults[:FAULTS_SHOWN]))
        pytest.fail(f"{len(faults)} of {len(found)} hang, or are answered as a defect:\n{shown}", pytrace=False)


def _named(visit: Visit) -> set[str]:
    """The reasons of its statuses of 500 and more."""
    return {reason for status, reason in zip(visit.statuses, visit.reasons, strict=False) if status >= 500}


@pytest.mark.parametrize("at", ["http", "edge"])
def test_malformed_http_harms_nobody(
    at: str, deployment: Deployment, health: Health, request: pytest.FixtureRequest
) -> None:
    """To nginx, and to an edge without nginx before it: each connection ends, with a response or without."""
    began = time.monotonic()
    found = visits(request.getfixturevalue(at), requests(SEED, HTTP_CASES), rest=0.3, deadline=DEADLINE)
    took = time.monotonic() - began
    health.check()
    told(found, took)


def test_requests_and_notices_of_a_hostile_edge_harm_no_worker(deployment: Deployment, health: Health) -> None:
    """Malformed requests are set aside, each with a reason. Others run or do not; the slots are free afterwards."""
    container, _ = instance(deployment, "edge")
    workers = [name.partition(".")[2] for name in deployment.queues() if name.startswith("worker.")]
    dead(deployment)
    sent = play(deployment, container, "hostile_edge.py", SEED, AMQP_REQUESTS, AMQP_NOTICES, *workers)
    print(sent)
    health.check()
    errors = dead(deployment)
    print(errors)
    assert sent["malformed"] <= sum(errors.values()) <= sent["malformed"] + sent["odd"]
    assert "" not in errors
    assert sent["claimed"] > 0, "some of the requests that the notices are about did run"
    assert sent["unsendable"] < sum(sent.values()) / 10


def test_replies_of_a_hostile_worker_harm_no_edge(deployment: Deployment, health: Health, http: Address) -> None:
    """It takes its part of the clients' requests. Each client hears of an ending, its own or a broken connection."""
    container, _ = instance(deployment, "worker")
    edges = [name.partition(".")[2] for name in deployment.queues() if name.startswith("edge.")]
    random = Random(SEED)
    bodies = (b"", b"x", b"x" * 70_000, b"x" * 300_000)
    heads = (
        b"GET /whoami HTTP/1.1\r\nHost: a\r\nConnection: close\r\n",
        b"HEAD /whoami HTTP/1.1\r\nHost: a\r\nConnection: close\r\n",
        b"PUT /probe/mirror HTTP/1.1\r\nHost: a\r\nConnection: close\r\n",
        b"POST /probe/mirror HTTP/1.1\r\nHost: a\r\nConnection: close\r\n",
    )
    calls = []
    for _ in range(400):
        head, body = random.choice(heads), random.choice(bodies)
        calls.append(
            (
                "a request",
                head + (b"Content-Length: %d\r\n\r\n%s" % (len(body), body) if b"/probe" in head else b"\r\n"),
            )
        )
    results: list[dict[str, int]] = []
    hostile = Meanwhile(
        lambda: results.append(play(deployment, container, "hostile_worker.py", SEED, AMQP_REPLIES, 12, *edges))
    )
    began = time.monotonic()
    # They end by themselves: a streamed response that never goes on ends when the hostile worker has left.
    found = visits(http, calls, rest=DEADLINE, deadline=DEADLINE, at_once=48)
    hostile.wait()
    (sent,) = results
    print(sent)
    took = time.monotonic() - began
    health.check()
    told(found, took)
    assert sent["taken"] > len(calls) / 10
    assert sent["replies"] >= AMQP_REPLIES
