"""Scale is not configuration: workers come and go under load, and nothing else is touched."""

import time
from secrets import token_hex

from integration.client import Call, Load
from integration.deployment import Deployment, moment
from integration.polling import eventually


def test_from_one_worker_to_eight_and_back_to_two_no_request_fails(shared: Deployment) -> None:
    """A new worker serves within two seconds of being ready; one that leaves finishes first; the edge and nginx are
    the same processes throughout."""
    shared.ready(workers=1)
    others = [shared.container(service) for service in ("edge", "nginx", "rabbitmq")]
    processes = [shared.pids(other) for other in others]
    old = {worker.id for worker in shared.workers()}

    def make(number: int) -> Call:
        return Call(f"/work?ms=10&key={name}-{number}", "POST" if number % 2 else "GET")

    name = token_hex(3)
    with Load(shared.http, rate=80, seconds=90, make=make) as load:
        eventually(lambda: load.sent > 80, "the load is under way")
        shared.scale(worker=8)
        eventually(lambda: len({answer.worker for answer in load.answers[-80:]}) == 8, "all eight serve", 40)
        grown = [worker for worker in shared.workers() if worker.id not in old]
        ready = {worker.id[:12]: _ready_at(shared, worker.id) for worker in grown}
        at = time.time()
        shared.scale(worker=2)
        eventually(lambda: len(shared.workers()) == 2, "six are gone", 40)
        print(f"from eight workers to two: {time.time() - at:.1f} s")
        target = load.sent + 80
        eventually(lambda: load.sent >= target, "the load goes on for a second")
        answers = load.finish()

    assert set(load.endings()) == {"200"}
    assert {answer.attempt for answer in answers} == {"1"}
    assert len(answers) == load.sent
    assert len(ready) == 7
    first = {
        worker: min(a.ended_at for a in answers if (a.worker or "").startswith(worker)) - at
        for worker, at in ready.items()
    }
    print(f"new workers served their first request after {min(first.values()):.2f} to {max(first.values()):.2f} s")
    assert max(first.values()) < 2
    assert [shared.look(other).started_at for other in others] == [other.started_at for other in others]
    assert [shared.pids(other) for other in others] == processes


def _ready_at(deployment: Deployment, worker: str) -> float:
    """When the broker had confirmed the worker's consumers."""
    (container,) = [found for found in deployment.workers() if found.id == worker]
    lines = deployment.events(container, "broker.connected")
    return next(moment(line["timestamp"]) for line in lines if line["link"].endswith(" consumes"))
