"""Sticky sessions: one session, one worker, through whichever edge; and what happens when that worker leaves."""

from collections import Counter
from secrets import token_hex

import pytest

from integration.client import Call, Load, send
from integration.deployment import Deployment
from integration.polling import eventually

TABLE = """\
version: 1
routes:
  - { name: shop, match: { headers: { X-Shop: "1" } }, sticky: { cookie: cart } }
  - { name: devices, match: { headers: { X-Device: { regex: . } } }, to: shop, sticky: { header: X-Device } }
  - { name: default }
"""


@pytest.fixture
def shop(pooled: Deployment) -> Deployment:
    pooled.ready(workers=1, edges=2, worker_shop=2)
    pooled.route(TABLE)
    return pooled


def of(device: str, key: str = "", ms: int = 5, method: str = "GET") -> Call:
    return Call(f"/work?ms={ms}&key={key}", method, (("X-Device", device),), key=key)


def owners(deployment: Deployment) -> Counter[str]:
    """How many partitions each worker has."""
    tags = deployment.rabbitmqctl("list_consumers", "queue_name", "consumer_tag").splitlines()[1:]
    found = (line.split("\t") for line in tags)
    return Counter(tag.rpartition(".")[0] for queue, tag in found if queue.startswith("pool.shop."))


def settled(deployment: Deployment, workers: int) -> Counter[str]:
    """The partitions are shared evenly."""

    def even() -> Counter[str]:
        now = owners(deployment)
        fair = len(now) == workers and sum(now.values()) == 32 and max(now.values()) - min(now.values()) <= 1
        return now if fair else Counter()

    return eventually(even, f"32 partitions shared evenly by {workers}", 45, 0.5)


def test_a_session_stays_with_its_worker(shop: Deployment) -> None:
    """A client without the cookie gets one, and all that it sends with it goes to the worker of the first request,
    through either edge. Many sessions are spread over the workers."""
    settled(shop, 2)
    first = send(shop.http, Call("/whoami", fields=(("X-Shop", "1"),)))
    assert first.first("Rabbitbal-Pool") == "shop"
    (issued,) = first.all("Set-Cookie")
    cookie, *attributes = issued.split("; ")
    assert cookie.startswith("cart=")
    assert {"HttpOnly", "Path=/", "SameSite=Lax"} <= set(attributes)
    again = [
        send(shop.http, Call("/whoami", fields=(("X-Shop", "1"), ("Cookie", f"a=b; {cookie}")))) for _ in range(20)
    ]
    assert {answer.worker for answer in again} == {first.worker}
    assert not [answer for answer in again if answer.all("Set-Cookie")]
    many = Counter(send(shop.http, of(token_hex(8))).worker for _ in range(60))
    assert len(many) == 2
    assert min(many.values()) >= 10, many


def test_a_worker_that_dies_loses_no_request_and_others_take_its_sessions(shop: Deployment) -> None:
    """Under load: GETs all get their 200; a POST gets it or `worker-lost`, and none runs twice. One that waited in the
    queue of the dead one's partition is run by another."""
    settled(shop, 2)
    name = token_hex(3)
    devices = [token_hex(8) for _ in range(40)]

    def make(number: int) -> Call:
        return of(devices[number % 40], f"{name}-{number}", method="POST" if number % 4 == 3 else "GET")

    with Load(shop.http, rate=60, seconds=12, make=make) as load:
        eventually(lambda: load.sent > 120, "the load is under way")
        shop.kill(shop.containers("worker-shop")[0])
        answers = load.complete()
    endings = Counter((answer.call.method, answer.ending) for answer in answers)
    print(f"a sticky worker killed: {endings}, slowest {max(a.seconds for a in answers):.2f} s")
    assert len(answers) == load.sent
    assert set(endings) <= {("GET", "200"), ("POST", "200"), ("POST", "502 worker-lost")}
    runs = shop.runs_everywhere()
    posts = [answer.call.key for answer in answers if answer.call.method == "POST"]
    assert max(runs[key] for key in posts) == 1
    late = [answer for answer in answers if answer.call.key == f"{name}-{load.sent - 1}"]
    assert late[0].status == 200


def test_partitions_follow_the_workers(shop: Deployment) -> None:
    """One worker more: a part of the sessions moves to it, the others stay where they are. One less: back."""
    settled(shop, 2)
    devices = [token_hex(8) for _ in range(60)]
    before = {device: send(shop.http, of(device)).worker for device in devices}
    shop.scale(worker_shop=3)
    settled(shop, 3)
    after = {device: send(shop.http, of(device)).worker for device in devices}
    moved = sum(before[device] != after[device] for device in devices)
    print(f"a third worker: {moved} of 60 sessions moved")
    assert 0 < moved < 40
    assert len(set(after.values())) == 3
    shop.scale(worker_shop=2)
    settled(shop, 2)
    assert {send(shop.http, of(device)).status for device in devices} == {200}
