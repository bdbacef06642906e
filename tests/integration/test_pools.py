"""Capacity moves while requests flow: bindings, spill-over, drain, and what the operator is told."""

import json
import time
from collections import Counter
from secrets import token_hex
from typing import Any

import pytest

from integration.client import Background, Call, Load, send
from integration.deployment import Deployment
from integration.polling import eventually


@pytest.fixture
def route(pooled: Deployment) -> str:
    """The key of a route of its own: /work with this value of X-Route."""
    key = f"k{token_hex(3)}"
    pooled.ready(workers=1)
    pooled.route(f"""\
version: 1
routes:
  - {{ name: {key}, match: {{ headers: {{ X-Route: {key} }} }} }}
  - {{ name: default }}
""")
    return key


def call(route: str, key: str, ms: int = 20, method: str = "GET") -> Call:
    return Call(f"/work?ms={ms}&key={key}", method, (("X-Route", route),), key=key)


def test_a_route_moves_between_pools_under_load(pooled: Deployment, route: str) -> None:
    """Three moves in a steady load of GETs and POSTs: no request fails, none runs twice, and what comes after a move is
    run by the new pool. The tap has each move: who, when, what."""
    pooled.operate("pools", "bind", route, "north")
    with Load(
        pooled.http,
        rate=60,
        seconds=90,
        make=lambda number: call(route, f"{route}-{number}", method="POST" if number % 2 else "GET"),
    ) as load:
        eventually(lambda: load.sent > 60, "the load is under way")
        for pool in ("south", "default", "north"):
            moved = pooled.operate("pools", "move", route, pool)
            assert moved["to"] == pool
            mark = time.time()
            target = load.sent + 120
            eventually(lambda: load.sent >= target, "the load goes on")  # noqa: B023 - asked in this turn only
            # Half a second behind the move: what was in the old queue then may still be under way.
            pools = Counter(a.first("Rabbitbal-Pool") for a in load.answers if a.ended_at - a.seconds > mark + 0.5)
            assert set(pools) == {pool}, pools
        answers = load.finish()
    assert set(load.endings()) == {"200"}
    assert len(answers) == load.sent
    print(f"three moves, {load.sent} requests: slowest {max(a.seconds for a in answers):.2f} s")
    runs = pooled.runs_everywhere()
    assert {runs[f"{route}-{number}"] for number in range(load.sent)} == {1}

    def told() -> list[dict[str, object]]:
        return [n for n in pooled.events(pooled.container("tap"), "pool.moved") if n.get("key") == route]

    notices = eventually(lambda: told() if len(told()) == 3 else [], "the tap has the moves")
    assert [notice["to"] for notice in notices] == ["south", "default", "north"]
    assert {notice["who"] for notice in notices} == {"the tests"}
    pooled.operate("pools", "unbind", route, "north")


def test_without_a_pool_a_route_waits_a_moment_and_then_says_so(pooled: Deployment, route: str) -> None:
    """Unbound: 503 `unroutable` after the grace; bound within the grace: nobody notices."""
    answer = send(pooled.http, call(route, "nowhere"))
    assert answer.ending == "503 unroutable"
    held = Background(pooled.http, call(route, f"{route}-late"))
    pooled.bind_directly(route, "north")
    assert [answer.ending for answer in held.answers()] == ["200"]
    pooled.operate("pools", "unbind", route)


def test_a_second_pool_takes_only_what_the_first_has_no_room_for(pooled: Deployment, route: str) -> None:
    """Spill-over: worker-south serves the pool north at a lower priority. A load within north's slots stays there; one
    beyond them is shared."""
    pooled.operate("pools", "bind", route, "north")
    south = pooled.container("worker-south").id[:12]
    quiet = [send(pooled.http, call(route, f"{route}-q{n}", ms=5)) for n in range(40)]
    assert {answer.status for answer in quiet} == {200}
    assert not [answer for answer in quiet if (answer.worker or "").startswith(south)]
    # Four of half a second at once: north has two slots.
    crowd = Background(pooled.http, *(call(route, f"{route}-c{n}", ms=500) for n in range(4))).answers()
    assert {answer.status for answer in crowd} == {200}
    assert Counter((answer.worker or "").startswith(south) for answer in crowd) == {True: 2, False: 2}
    assert max(answer.seconds for answer in crowd) < 0.95, "nobody waited for a slot"
    pooled.operate("pools", "unbind", route, "north")


def test_a_drained_worker_finishes_and_takes_no_more_until_it_is_told_to(pooled: Deployment, route: str) -> None:
    """What runs is answered; what comes goes to others; nothing fails. The tap hears of it."""
    pooled.ready(workers=1, worker_north=2)
    pooled.operate("pools", "bind", route, "north")
    first = pooled.containers("worker-north")[0]
    held = Background(pooled.http, *(call(route, f"{route}-h{n}", ms=1500) for n in range(4)))
    eventually(lambda: pooled.events_of("worker-north", "ran", f"{route}-h") >= 2, "they run")
    name = next(
        w["worker"] for w in pooled.operate("workers", "list")["workers"] if w["worker"].startswith(first.id[:12])
    )
    pooled.operate("drain", name)
    assert {answer.status for answer in held.answers()} == {200}
    others = [send(pooled.http, call(route, f"{route}-o{n}", ms=5)) for n in range(20)]
    assert {answer.status for answer in others} == {200}
    assert not [answer for answer in others if answer.worker == name]
    assert pooled.look(first).health == "healthy"
    eventually(lambda: pooled.notices("worker.drained", name), "the tap hears of it")
    pooled.operate("resume", name)

    def back() -> bool:
        return bool(send(pooled.http, call(route, f"{route}-back", ms=5)).worker == name)

    eventually(back, "it takes requests again")
    pooled.operate("pools", "unbind", route, "north")


def test_the_operator_sees_pools_and_workers(pooled: Deployment, route: str) -> None:
    pooled.operate("pools", "bind", route, "north")

    def north() -> dict[str, Any]:
        (pool,) = [pool for pool in pooled.operate("pools", "list")["pools"] if pool["pool"] == "north"]
        return dict(pool)

    seen = eventually(lambda: pool if route in (pool := north())["bindings"] else {}, "the binding is listed")
    assert sorted(seen["bindings"]) == sorted(["north", route])
    assert seen["workers"] == 2, "its own and the one that spills over"
    assert seen["slots"] == 4
    table = pooled.operator("pools", "list")
    assert table.returncode == 0
    assert route in table.stdout
    explained = pooled.operate("routes", "explain", "http://x.test/work", "--header", f"X-Route: {route}")
    assert route in json.dumps(explained)
    assert "north" in json.dumps(explained)
    pooled.operate("pools", "unbind", route, "north")


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (("pools", "move", "default", "nowhere"), 1, "nowhere"),
        (("pools", "bind", "default", "north"), 1, "default"),
        (("pools", "move", "never-bound", "north"), 1, "bind"),
        (("drain", "nobody-123456"), 1, "nobody-123456"),
        (("pools", "bind", "a..b", "north"), 2, "a..b"),
        (("pools", "frobnicate"), 2, "frobnicate"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(
    pooled: Deployment, command: tuple[str, ...], status: int, words: str
) -> None:
    pooled.ready(workers=1)
    before = pooled.rabbitmqctl("list_bindings", "source_name", "destination_name", "routing_key")
    done = pooled.operator(*command)
    assert done.returncode == status, done
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert pooled.rabbitmqctl("list_bindings", "source_name", "destination_name", "routing_key") == before
