"""The broker may restart at any time: what may run twice gets its answer, the rest an honest ending, nothing hangs."""

from collections import Counter
from secrets import token_hex

import pytest

from integration.client import Background, Call, Load, get
from integration.deployment import Deployment, Meanwhile
from integration.polling import eventually


@pytest.mark.timeout(200)
def test_a_restart_of_the_broker_under_load_loses_nothing_that_may_run_twice(shared: Deployment) -> None:
    """GETs inside their deadline get their 200 after it returns; a POST gets its 200, or hears at once why not, and
    never runs twice; edge, workers and tap come back by themselves, and nothing is left over."""
    shared.ready(workers=4)
    name = token_hex(3)

    def make(number: int) -> Call:
        kind = ("get", "post")[number % 2]
        return Call(f"/work?ms=30&key={name}-{kind}-{number}", kind.upper(), key=kind)

    held = [Call(f"/work?ms=2500&key={name}-held-get-{n}", key="get") for n in range(3)]
    held += [Call(f"/work?ms=2500&key={name}-held-post-{n}", "POST", key="post") for n in range(3)]
    before = {container.id: container.started_at for container in shared.containers()}
    with Load(shared.http, rate=60, seconds=60, make=make) as load:
        eventually(lambda: load.sent > 60, "the load is under way")
        holding = Background(shared.http, *held)
        shared.runners(*(call.target.partition("key=")[2] for call in held))
        took = Meanwhile(lambda: shared.restart(shared.container("rabbitmq"))).wait()
        eventually(lambda: shared.consumers() == 4, "the workers are back", 60)
        target = load.sent + 120
        eventually(lambda: load.sent >= target, "the load goes on for two seconds")
        answers = load.finish() + holding.answers()

    gets = Counter(answer.ending for answer in answers if answer.call.key == "get")
    posts = Counter(answer.ending for answer in answers if answer.call.key == "post")
    slowest = max(answer.seconds for answer in answers)
    print(
        f"docker restart of the broker took {took:.1f} s; GET {dict(gets)}, POST {dict(posts)}, slowest {slowest:.1f} s"
    )
    assert set(gets) == {"200"}
    assert set(posts) <= {"200", "502 worker-lost", "503 broker-down"}
    assert posts["502 worker-lost"] >= 3, "the POSTs that were running were lost with the broker"
    assert posts["200"] > 0.5 * posts.total()
    lost = [answer.seconds for answer in answers if answer.reason == "worker-lost"]
    # Told when the connection broke; a request that came while there was none waited for it first.
    assert max(lost) < took + 10
    runs = shared.runs()
    assert {key: n for key, n in runs.items() if key.startswith(name) and "-post-" in key and n > 1} == {}
    assert shared.stats()["pending"] == 0
    assert {name: q["messages_ready"] for name, q in shared.queues().items() if name.startswith("pool.")} == {
        "pool.default": 0
    }
    # Nobody had to be restarted for it, and the tap logs again.
    rabbitmq = shared.container("rabbitmq").id
    now = {container.id: container.started_at for container in shared.containers() if container.id in before}
    assert {key: value for key, value in now.items() if key != rabbitmq} == {
        key: value for key, value in before.items() if key != rabbitmq
    }
    get(shared.http, f"/whoami?key={name}-after")
    assert shared.ended(f"{name}-after")["status"] == 200
