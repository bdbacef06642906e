"""One request to more than one pool: first, all, shadow, and hedging."""

import email
import email.policy
from email.message import MIMEPart
from secrets import token_hex
from statistics import median
from typing import Any, TypeAlias

import pytest

from integration.client import Answer, Background, Call, Load, send
from integration.deployment import Deployment
from integration.polling import eventually

Part: TypeAlias = "MIMEPart[Any, Any]"

TABLE = """\
version: 1
routes:
  - { name: race, match: { headers: { X-Mode: first } }, mode: first, to: [north, south] }
  - { name: every, match: { headers: { X-Mode: all } }, mode: all, to: [north, south, shop], timeout: 2s }
  - { name: mirrored, match: { headers: { X-Mode: shadow } }, mode: shadow, to: [north, south] }
  - { name: hedged, match: { headers: { X-Mode: hedge } }, to: default, hedge: { budget: 0.2, after: 150ms } }
  - { name: default }
"""


@pytest.fixture
def copying(pooled: Deployment) -> Deployment:
    pooled.ready(workers=1)
    pooled.route(TABLE)
    return pooled


def call(mode: str, target: str, method: str = "GET", body: bytes = b"") -> Call:
    return Call(target, method, (("X-Mode", mode),), body)


def parts_of(answer: Answer) -> list[Part]:
    """The parts of a multipart answer, as a mail program would read them."""
    head = f"Content-Type: {answer.first('Content-Type')}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.body, policy=email.policy.HTTP)
    assert message.is_multipart()
    assert not message.defects
    return list(message.iter_parts())


def status_of(part: Part) -> int:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return int(payload.split(b" ", 2)[1])


def lines_of(deployment: Deployment, key: str, number: int) -> list[dict[str, object]]:
    """The access lines of a request's copies, once there are so many."""
    return eventually(
        lambda: lines if len(lines := deployment.access(key)) >= number else [], f"{number} lines of {key}"
    )


def test_first_is_answered_by_whoever_is_quicker(copying: Deployment) -> None:
    """Both pools get it; one answer; the other copy, whose pool is frozen for a moment, ends as `superseded`."""
    key = token_hex(4)
    frozen = copying.container("worker-south")
    copying.pause(frozen)
    answer = send(copying.http, call("first", f"/work?ms=50&key={key}"))
    copying.unpause(frozen)
    assert answer.status == 200
    lines = lines_of(copying, key, 2)
    assert len(lines) == 2
    assert {line["leg"] for line in lines} == {"first"}
    assert len({line["group"] for line in lines}) == 1
    assert sorted(str(line["reason"]) for line in lines) == ["None", "superseded"]


def test_first_does_not_wait_for_a_frozen_pool(copying: Deployment) -> None:
    """The pool south is frozen with requests in it: every answer is as quick as north's alone."""
    alone = [send(copying.http, call("none", "/work?ms=20")).seconds for _ in range(30)]
    frozen = copying.container("worker-south")
    copying.pause(frozen)
    try:
        answers = [send(copying.http, call("first", "/work?ms=20")) for _ in range(60)]
    finally:
        copying.unpause(frozen)
    assert {answer.status for answer in answers} == {200}
    assert {answer.first("Rabbitbal-Pool") for answer in answers} == {"north"}
    seconds = sorted(answer.seconds for answer in answers)
    print(
        f"first with one pool frozen: median {median(seconds):.3f} s, slowest {seconds[-1]:.3f} s; "
        f"one: {median(alone):.3f} s"
    )
    assert seconds[-1] < 5, "nobody waited for the frozen one"


def test_first_takes_a_good_answer_before_a_bad_one(copying: Deployment) -> None:
    """One pool answers 500 at once, the other 200 later: 200. Both bad: the application's own answer."""
    copying.route(TABLE.replace("to: [north, south] }", "to: [north, nowhere] }", 1))
    # Nothing is bound to `nowhere`, and that is known after the grace; the answer does not wait for it.
    answer = send(copying.http, call("first", "/work?ms=20"))
    assert answer.status == 200
    assert answer.seconds < 1.5
    assert send(copying.http, call("first", "/status/503")).ending == "503"
    copying.route(TABLE)


def test_a_large_body_and_a_large_answer_go_through_a_race(copying: Deployment) -> None:
    """An upload in pieces is read once and given to both; a streamed answer comes whole from one."""
    body = token_hex(500_000).encode()
    answer = send(copying.http, call("first", "/probe/mirror", "POST", body))
    assert answer.status == 200
    assert answer.body == body


def test_the_cancelled_copy_stops_running(copying: Deployment) -> None:
    """The loser of a race hears that it is not wanted any more."""
    key = token_hex(4)
    copying.pause(copying.container("worker-south"))
    answer = send(copying.http, call("first", f"/work?ms=10&key={key}"))
    assert answer.first("Rabbitbal-Pool") == "north"
    copying.unpause(copying.container("worker-south"))
    lines_of(copying, key, 2)
    eventually(lambda: copying.queues()["pool.south"]["messages_unacknowledged"] == 0, "south has nothing in hand", 30)
    assert copying.stats()["pending"] == 0


def test_all_gathers_every_answer_with_its_own_status(copying: Deployment) -> None:
    answer = send(copying.http, call("all", "/whoami"))
    assert answer.status == 200
    assert (answer.first("Content-Type") or "").startswith("multipart/mixed")
    parts = parts_of(answer)
    assert [part["Rabbitbal-Key"] for part in parts] == ["north", "south", "shop"]
    assert [part["Rabbitbal-Pool"] for part in parts] == ["north", "south", "shop"]
    assert [status_of(part) for part in parts] == [200, 200, 200]
    assert answer.first("Rabbitbal-Failed") is None


def test_all_with_one_pool_dead_says_which(copying: Deployment) -> None:
    """Three pools, one without workers: two answers, and the third part says that nobody took it."""
    copying.ready(workers=1, worker_south=0)
    answer = send(copying.http, call("all", "/whoami"))
    assert answer.status == 200
    assert answer.first("Rabbitbal-Failed") == "south"
    north, south, shop = parts_of(answer)
    assert [status_of(part) for part in (north, south, shop)] == [200, 504, 200]
    assert south["Rabbitbal-Error"] == "queue-timeout"
    assert answer.seconds < 4
    copying.ready(workers=1)


def test_a_shadow_costs_the_client_nothing_and_is_compared(copying: Deployment) -> None:
    """The canary is asked, too. It answers otherwise: the tap says so. It is frozen: the client does not notice."""
    key = token_hex(4)
    answer = send(copying.http, call("shadow", f"/echo?key={key}a"))
    assert answer.first("Rabbitbal-Pool") == "north"

    def compared(group: object) -> list[dict[str, object]]:
        return [n for n in copying.events(copying.container("tap"), "shadow.compared") if n["group"] == group]

    group = lines_of(copying, f"{key}a", 2)[0]["group"]
    (line,) = eventually(lambda: compared(group), "the tap compares")
    assert line["same"] is True

    answer = send(copying.http, call("shadow", f"/whoami?key={key}b"))
    assert answer.status == 200
    group = lines_of(copying, f"{key}b", 2)[0]["group"]
    (line,) = eventually(lambda: compared(group), "the tap compares")
    assert line["same"] is False
    assert line["differs"] == ["body"]

    frozen = copying.container("worker-south")
    copying.pause(frozen)
    try:
        slow = [send(copying.http, call("shadow", f"/work?ms=10&key={key}c{n}")) for n in range(40)]
    finally:
        copying.unpause(frozen)
    assert {answer.status for answer in slow} == {200}
    assert max(answer.seconds for answer in slow) < 2


def test_a_late_request_is_hedged_within_its_budget(copying: Deployment) -> None:
    """One of two workers is frozen with a slot free: what it has got is asked for once more, from the other, as far as
    the budget goes; POSTs are not."""
    copying.ready(workers=2)
    frozen = copying.workers()[0]
    before = copying.stats()["copies"]["hedges"]["sent"]
    copying.pause(frozen)
    try:
        with Load(copying.http, rate=20, seconds=4, make=lambda n: call("hedge", f"/work?ms=10&n={n}")) as load:
            answers = load.complete()
    finally:
        copying.unpause(frozen)
    sent = copying.stats()["copies"]["hedges"]["sent"] - before
    late = sorted(answer.seconds for answer in answers)
    print(f"hedged: {len(answers)} requests, {sent} hedges, slowest {late[-1]:.2f} s, endings {load.endings()}")
    assert sent >= 2
    assert set(load.endings()) == {"200"}
    assert late[-1] < 10, "a frozen worker is noticed after 12 s and more; these did not wait for that"
    key = token_hex(4)
    held = Background(copying.http, call("hedge", f"/work?ms=600&key={key}", "POST"))
    assert [answer.status for answer in held.answers()] == [200]
    assert copying.runs()[key] == 1
