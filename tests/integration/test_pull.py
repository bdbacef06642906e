"""Workers pull: each holds as many requests as it runs and no more, so a slow one has no queue of its own."""

import threading
from secrets import token_hex

from integration.client import Background, Call, Load, volley
from integration.deployment import Deployment, Meanwhile
from integration.polling import eventually


def test_a_slow_worker_holds_no_queue_of_its_own(small: Deployment) -> None:
    """Of three workers with one slot each, one is busy for three seconds. Fifty quick requests are all served by the
    other two, while it is busy. A broker that deals in turn would have given it a third of them."""
    small.change()
    small.ready(workers=3)
    key = token_hex(4)
    slow = Background(small.http, Call(f"/work?ms=3000&key={key}", "POST"))
    busy = small.runner(key)
    quick = volley(small.http, [Call("/work?ms=10", ("GET", "POST")[n % 2]) for n in range(50)], at_once=50)
    assert not slow.done
    assert {answer.ending for answer in quick} == {"200"}
    slowest = max(answer.seconds for answer in quick)
    print(f"fifty requests beside a slow worker: the slowest took {slowest:.2f} s")
    assert slowest < 2
    servers = {(answer.worker or "").split("-")[0] for answer in quick}
    assert len(servers) == 2
    assert busy.id[:12] not in servers
    assert slow.answer().ending == "200"


def test_no_request_waits_while_a_slot_is_free(small: Deployment) -> None:
    """One of three slots is taken for long, and one request at a time goes to the others: none waits."""
    small.change()
    small.ready(workers=3)
    key = token_hex(4)
    slow = Background(small.http, Call(f"/work?ms=4000&key={key}"))
    small.runner(key)
    answers = volley(small.http, [Call("/work?ms=5") for _ in range(100)], at_once=1)
    assert not slow.done
    assert {answer.ending for answer in answers} == {"200"}
    waits = sorted(
        float((answer.first("Server-Timing") or "").split(",")[0].partition("dur=")[2]) for answer in answers
    )
    print(f"queue time with a slot free: median {waits[50]:.1f} ms, worst {waits[-1]:.1f} ms")
    assert waits[-1] < 500
    slow.answer()


def test_slots_in_use_never_exceed_the_prefetch(small: Deployment) -> None:
    """With more requests than slots the rest waits in the shared queue: the broker never has more unacknowledged than
    there are slots, and no worker ever ran two at a time."""
    small.change()
    small.ready(workers=3)
    rows = [
        line.split("\t") for line in small.rabbitmqctl("list_consumers", "queue_name", "prefetch_count").splitlines()
    ]
    assert [row[1] for row in rows if row[0] == "pool.default"] == ["1", "1", "1"]
    seen: list[tuple[int, int]] = []
    enough = threading.Event()

    def watch() -> None:
        while not enough.is_set():
            queue = small.queues()["pool.default"]
            seen.append((queue["messages_unacknowledged"], queue["messages_ready"]))

    # 3 slots of 50 ms do 60 a second.
    with Load(small.http, rate=80, seconds=4, make=lambda n: Call("/work?ms=50")) as load:
        eventually(lambda: load.sent > 40, "the load is under way")
        watching = Meanwhile(watch)
        load.complete()
        enough.set()
        watching.wait()
    assert set(load.endings()) == {"200"}
    print(f"unacknowledged and waiting, as seen: {seen}")
    assert max(unacknowledged for unacknowledged, _ in seen) == 3
    assert max(waiting for _, waiting in seen) > 3
    workers = small.workers()
    for worker in workers:
        small.stop(worker)
        assert [line["most_running"] for line in small.events(worker, "worker.stopped")][-1] == 1
