"""The same requests to the same application, served by uvicorn and behind the proxy: what differs is in one table."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.client import Address
from integration.deployment import Deployment
from integration.differential.case import Case, Order
from integration.differential.cases import cases
from integration.differential.exchange import Answer, exchange
from integration.differential.observation import Observation, exchanges, runs
from integration.differential.server import uvicorn
from integration.differential.verdict import verdict
from integration.polling import eventually

SEED = int(os.environ.get("DIFFERENTIAL_SEED", "1"))
LEAST = 3000
FAULTS_SHOWN = 12


@pytest.fixture(scope="module")
def mirrored(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    """Nothing added for tests: responses are as a user gets them."""
    deployment = Deployment(
        directory,
        RABBITBAL_APP_DIR=app_dir,
        RABBITBAL_APP="mirror:app",
        RABBITBAL_CONCURRENCY="8",
        RABBITBAL_EXPOSE_WORKER="0",
    )
    try:
        deployment.up(workers=2)
        yield deployment
    finally:
        deployment.down()


@pytest.fixture
def direct(directory: Path, app_dir: str) -> Iterator[Address]:
    with uvicorn("mirror:app", app_dir, log(directory)) as address:
        yield address


def log(directory: Path) -> Path:
    return directory / "uvicorn.log"


def test_a_response_that_the_client_has_whole_holds_up_nobody(mirrored: Deployment) -> None:
    """An application may have work to do when it has sent all that it declared, and end its response then. Other
    clients' requests do not wait for that behind it, on a connection that nginx believes to be free. The first test of
    this deployment: with few connections kept alive those are the next to be used."""
    mirrored.ready(workers=2)
    busy = [Case("whole", Order(f"busy-{n}", pause=9000).declared()) for n in range(6)]
    quick = [Case("whole", Order(f"quick-{n}").declared()) for n in range(10)]

    async def run() -> tuple[list[Answer], list[Answer], float]:
        first = await asyncio.gather(*(exchange(mirrored.http, case) for case in busy))
        began = time.monotonic()
        second = await asyncio.gather(*(exchange(mirrored.http, case) for case in quick))
        return first, second, time.monotonic() - began

    first, second, took = asyncio.run(run())
    assert {(answer.status, answer.ending) for answer in first + second} == {(200, "complete")}
    assert took < 5, "the applications of the first are busy for nine seconds"


def test_every_difference_to_uvicorn_is_in_the_table(mirrored: Deployment, direct: Address, directory: Path) -> None:
    """Status, fields, body and ending of each answer, the use of the connection afterwards, and what the application
    saw: equal, or as `differential.rules` says. No rule is there for nothing. DIFFERENTIAL_SEED repeats a run."""
    generated = cases(SEED)
    print(f"DIFFERENTIAL_SEED={SEED}: {len(generated)} requests, {dict(Counter(case.family for case in generated))}")
    assert len(generated) >= LEAST
    began = time.monotonic()
    answers = exchanges(generated, direct, mirrored.http)
    print(f"both sides in {time.monotonic() - began:.1f} s; {Counter(each.ending for _, each in answers.values())}")
    sides = (
        runs(log(directory).read_text().splitlines()),
        runs(line for worker in mirrored.workers() for line in mirrored.logs(worker)),
    )
    seen = {
        key: tuple(
            Observation(answer, lines.get(key, []), len(lines.get(f"{key}-follow", [])))
            for answer, lines in zip(both, sides, strict=True)
        )
        for key, both in answers.items()
    }
    (network,) = mirrored.network("front")["IPAM"]["Config"]
    found = verdict(generated, seen, network["Gateway"])
    print(found.table())
    if found.faults:
        told = "\n".join(found.faults[:FAULTS_SHOWN])
        pytest.fail(f"{len(found.faults)} cases differ: {dict(found.kinds)}\n{told}", pytrace=False)
    assert not found.stale, "rules that nothing needs"
    # Applications that are busy behind their response are through soon.
    eventually(lambda: mirrored.stats()["pending"] == 0, "nothing is left in the edge")
