"""A worker that is told to stop finishes what it has; told twice, it hands it to others at once."""

import time
from secrets import token_hex

from integration.client import Background, Call, Load
from integration.deployment import Deployment, Meanwhile
from integration.polling import eventually


def test_a_stopped_worker_finishes_and_acknowledges_what_it_runs(shared: Deployment) -> None:
    """`docker stop` in the middle of a POST that must not run twice, under load: the POST gets its 200 from that very
    worker, every other request its 200 too, and the worker leaves with status 0."""
    shared.ready(workers=2)
    key = token_hex(4)
    with Load(shared.http, rate=80, seconds=20, make=lambda n: Call("/work?ms=10", "POST" if n % 2 else "GET")) as load:
        asked = Background(shared.http, Call(f"/work?ms=3000&key={key}", "POST"))
        worker = shared.runner(key)
        took = Meanwhile(lambda: shared.stop(worker)).wait()
        answer = asked.answer()
        load.finish()
    assert answer.ending == "200"
    assert answer.attempt == "1"
    assert (answer.worker or "").startswith(worker.id[:12])
    assert 1 < took < 10
    assert shared.look(worker).exit_code == 0
    assert [line["event"] for line in shared.events(worker, "worker.stopped")] == ["worker.stopped"]
    assert set(load.endings()) == {"200"}
    assert {answer.attempt for answer in load.answers} == {"1"}
    assert shared.runs()[key] == 1
    assert shared.consumers() == 1


def test_a_draining_worker_takes_nothing_new(shared: Deployment) -> None:
    """From the signal on all requests go to the other worker."""
    shared.ready(workers=2)
    key = token_hex(4)
    asked = Background(shared.http, Call(f"/work?ms=4000&key={key}"))
    worker = shared.runner(key)
    stopping = Meanwhile(lambda: shared.stop(worker))
    eventually(lambda: shared.events(worker, "worker.draining"), "the worker drains")
    eventually(lambda: shared.consumers() == 1, "the broker has one consumer")
    others = Background(shared.http, *[Call("/work?ms=5") for _ in range(50)]).answers()
    assert not asked.done
    assert {answer.ending for answer in others} == {"200"}
    assert not any((answer.worker or "").startswith(worker.id[:12]) for answer in others)
    assert asked.answer().ending == "200"
    stopping.wait()


def test_a_second_signal_hands_the_work_to_another_worker_at_once(shared: Deployment) -> None:
    """A GET runs again elsewhere; a POST, which must not, is told `worker-lost`; the worker is gone within seconds."""
    shared.ready(workers=2)
    get_key, post_key = token_hex(4), token_hex(4)
    # The broker deals them out in turn: each worker has one of each kind, and room for what the other loses.
    calls = [Call(f"/work?ms=4000&key={get_key}-{n}", key=f"{get_key}-{n}") for n in range(2)]
    calls += [Call(f"/work?ms=4000&key={post_key}-{n}", "POST", key=f"{post_key}-{n}") for n in range(2)]
    asked = Background(shared.http, *calls)
    runners = shared.runners(*(call.key for call in calls))
    worker = runners[f"{get_key}-0"]
    shared.kill(worker, "SIGTERM")
    eventually(lambda: shared.events(worker, "worker.draining"), "the worker drains")
    assert shared.look(worker).state == "running"
    shared.kill(worker, "SIGTERM")
    began = time.monotonic()
    eventually(lambda: shared.look(worker).state == "exited", "the worker is gone", 10)
    assert time.monotonic() - began < 4
    for answer in asked.answers():
        key = answer.call.key
        if runners[key].id != worker.id:
            assert (answer.ending, answer.attempt) == ("200", "1"), answer
        elif key.startswith(get_key):
            assert (answer.ending, answer.attempt) == ("200", "2"), answer
        else:
            assert answer.ending == "502 worker-lost"
            assert answer.seconds < 4
    runs = shared.runs()
    assert all(runs[key] == 1 for key in runners if key.startswith(post_key))
    assert all(runs[key] == (2 if runner.id == worker.id else 1) for key, runner in runners.items() if get_key in key)
