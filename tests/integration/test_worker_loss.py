"""A worker that vanishes costs nobody a request that may safely run again, and none runs twice that may not."""

import time
from collections import Counter
from secrets import token_hex

import pytest

from integration.client import Answer, Background, Call, Load, get, send
from integration.deployment import Deployment
from integration.polling import eventually

IDEMPOTENCY_KEY = (("Idempotency-Key", "a"),)


def work(key: str, ms: int, method: str = "GET", fields: tuple[tuple[str, str], ...] = ()) -> Call:
    return Call(f"/work?ms={ms}&key={key}", method, fields, key=key)


def by_key(answers: list[Answer]) -> dict[str, Answer]:
    return {answer.call.key: answer for answer in answers}


def test_killed_workers_cost_only_what_must_not_run_twice(shared: Deployment) -> None:
    """Two of eight workers die by SIGKILL under load, in the middle of requests of every kind.

    GETs and POSTs with an Idempotency-Key get their 200, from another worker. A POST without one gets its 200 or is
    told `worker-lost`, and never runs twice.
    """
    shared.ready(workers=8)
    name = token_hex(3)

    def mixed(number: int) -> Call:
        kind = number % 3
        key = f"{name}-{('get', 'post', 'keyed')[kind]}-{number}"
        return work(key, 60, "POST" if kind else "GET", IDEMPOTENCY_KEY if kind == 2 else ())

    # So long that they are found and killed in their middle on a slow machine too.
    held = [
        *(work(f"{name}-held-get-{n}", 8000) for n in range(6)),
        *(work(f"{name}-held-post-{n}", 8000, "POST") for n in range(6)),
        *(work(f"{name}-held-keyed-{n}", 8000, "POST", IDEMPOTENCY_KEY) for n in range(6)),
    ]
    with Load(shared.http, rate=120, seconds=8, make=mixed) as load:
        eventually(lambda: load.sent >= 120, "the load is under way")
        holding = Background(shared.http, *held)
        runners = shared.runners(*(call.key for call in held))
        # Whoever runs the first POST, and somebody who runs another request of the three that must come through.
        first = runners[f"{name}-held-post-0"]
        second = next(worker for key, worker in runners.items() if "post" not in key and worker.id != first.id)
        lost = {key for key, worker in runners.items() if worker.id in (first.id, second.id)}
        shared.kill(first)
        shared.kill(second)
        assert not holding.done, "nothing of what the killed workers ran had ended before"
        answers = load.complete()
    long = by_key(holding.answers())

    for key in lost:
        if "-post-" in key:
            assert long[key].ending == "502 worker-lost", long[key]
            assert long[key].seconds < 10, "told at once, not at the deadline"
        else:
            assert long[key].status == 200, long[key]
            # The kills come one after the other: the second worker may have had it from the first.
            assert long[key].attempt in ("2", "3")
            assert not (long[key].worker or "").startswith((first.id[:12], second.id[:12]))
    assert {long[key].ending for key in long.keys() - lost} == {"200"}
    assert len(answers) == load.sent == 960
    posts = [answer for answer in answers if "-post-" in answer.call.key]
    assert Counter(a.ending for a in answers if a not in posts) == {"200": 640}
    assert {answer.ending for answer in posts} <= {"200", "502 worker-lost"}
    runs = shared.runs()
    assert {key: n for key, n in runs.items() if key.startswith(name) and "-post-" in key and n > 1} == {}
    # What was lost ran once more, on one worker that lived, and never twice on the same one.
    dead = {first.id, second.id}
    for key in (key for key in lost if "-post-" not in key):
        where = shared.runs_by_worker(key)
        assert set(where.values()) == {1}, where
        assert where.keys() & dead
        assert len(where.keys() - dead) == 1
        assert len(where) <= int(long[key].attempt or "")


def test_a_request_that_kills_its_worker_is_not_repeated_blindly(shared: Deployment) -> None:
    """A POST runs once and its client hears of the loss; the same with an Idempotency-Key runs again."""
    shared.ready(workers=8)
    plain, keyed = token_hex(4), token_hex(4)
    answer = send(shared.http, Call(f"/crash?key={plain}", "POST"))
    assert answer.ending == "502 worker-lost"
    assert answer.seconds < 10
    answer = send(shared.http, Call(f"/crash?key={keyed}", "POST", IDEMPOTENCY_KEY))
    assert answer.ending == "502 poison"
    runs = shared.runs()
    assert (runs[plain], runs[keyed]) == (1, 3)
    assert shared.ended(plain)["reason"] == "worker-lost"


def test_a_poisonous_request_is_stopped_at_its_third_attempt(shared: Deployment) -> None:
    """It ran three times, its client hears so, and a copy lies in the dead-letter queue."""
    shared.ready(workers=8)
    key = token_hex(4)
    before = shared.queues()["dead.requests"]["messages_ready"]
    answer = get(shared.http, f"/crash?key={key}")
    assert answer.ending == "502 poison"
    assert shared.runs()[key] == 3
    line = shared.ended(key)
    assert (line["status"], line["reason"], line["attempt"]) == (502, "poison", 3)
    eventually(lambda: shared.queues()["dead.requests"]["messages_ready"] == before + 1, "the copy is in dead.requests")
    assert get(shared.http, "/whoami").status == 200


@pytest.mark.timeout(150)
def test_a_frozen_worker_is_noticed_and_its_requests_go_to_others(shared: Deployment) -> None:
    """Within 20 s: a GET gets its 200 from another worker, a POST hears `worker-lost`.

    When it thaws, its late answers change nothing, and it serves again by itself.
    """
    shared.ready(workers=8)
    name = token_hex(3)
    calls = [work(f"{name}-get-{n}", 3000) for n in range(4)]
    calls += [work(f"{name}-post-{n}", 3000, "POST") for n in range(4)]
    asked = Background(shared.http, *calls)
    runners = shared.runners(*(call.key for call in calls))
    frozen = runners[f"{name}-get-0"]
    shared.pause(frozen)
    started = time.monotonic()
    try:
        answers = by_key(asked.answers())
        noticed = time.monotonic() - started
    finally:
        shared.unpause(frozen)
    mine = {key for key, worker in runners.items() if worker.id == frozen.id}
    print(f"a frozen worker with {len(mine)} requests: the last answer came {noticed:.1f} s after the freeze")
    for key, answer in answers.items():
        if key in mine and "-post-" in key:
            assert answer.ending == "502 worker-lost"
        else:
            assert answer.status == 200, answer
            assert answer.attempt == ("2" if key in mine else "1")
            assert (answer.worker or "").startswith(frozen.id[:12]) is False or key not in mine
    assert noticed < 20 + 3
    # The thawed worker joins again, and what it still had to say is dropped.
    eventually(lambda: shared.consumers() == 8, "the thawed worker consumes again", 40)
    served = {get(shared.http, "/whoami").worker for _ in range(60)}
    assert any((worker or "").startswith(frozen.id[:12]) for worker in served)
    for key in mine:
        if "-post-" in key:
            assert shared.runs()[key] == 1
        assert len([line for line in shared.access(key) if not line.get("unmatched")]) == 1
