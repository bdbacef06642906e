"""The books on a real deployment, in a file and in PostgreSQL: they balance at rest, agree with what clients counted to
the last request, and say what the tap has missed."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from integration.client import Background, Call, Load, get, send, volley
from integration.conftest import _up
from integration.deployment import Deployment
from integration.polling import eventually

# By then an edge that a test before this one has killed is known to be gone.
SETTLED = 60.0


@pytest.fixture(scope="module")
def postgres(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    """The books in PostgreSQL."""
    deployment = Deployment(
        directory,
        ("compose/postgres.yml",),
        RABBITBAL_APP_DIR=app_dir,
        RABBITBAL_APP="probe:app",
        RABBITBAL_TIMEOUT="60",
    )
    deployment.build("postgres")
    yield from _up(deployment, workers=4)


@pytest.fixture(params=["shared", "postgres"])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """One whose books are in a file, then one whose books are in PostgreSQL."""
    found: Deployment = request.getfixturevalue(request.param)
    found.ready(workers=4)
    return found


def ledger(deployment: Deployment, page: str) -> Any:
    answer = get(deployment.dashboard, f"/api/ledger/{page}")
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def missed(after: dict[str, Any], before: dict[str, Any]) -> tuple[int, int]:
    """Debits and credits of all causes together; what was found again is negative."""

    def total(balance: dict[str, Any], side: str) -> int:
        return sum(gap[side] for gap in balance["gaps"].values())

    return total(after, "debits") - total(before, "debits"), total(after, "credits") - total(before, "credits")


def at_rest(deployment: Deployment, timeout: float = SETTLED) -> dict[str, Any]:
    """The balance once nothing is open, and nothing changes from one of an edge's figures to the next but one."""

    def settled() -> dict[str, Any] | None:
        before = ledger(deployment, "balance")
        if before["total"]["open"]:
            return None
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = ledger(deployment, "balance")
            if (now["total"], now["gaps"]) != (before["total"], before["gaps"]):
                return None
        return dict(ledger(deployment, "balance?check=true"))

    def answers() -> bool:
        return get(deployment.dashboard, "/api/ledger/balance").status == 200

    eventually(answers, "the ledger can be asked", 60)
    found = eventually(settled, "the books are at rest", timeout, 0.5)
    assert found is not None
    return found


def changed(after: dict[str, Any], before: dict[str, Any], name: str) -> int:
    return int(after["total"][name] - before["total"][name])


def test_clients_and_books_agree_though_the_tap_is_killed(deployment: Deployment) -> None:
    """Load, a worker killed, the tap killed and started again, the database restarted: at rest debits are credits, and
    as many as clients got answers. Counted anew, the tables say the same as the accounts."""
    before = at_rest(deployment)
    with Load(deployment.http, rate=60, seconds=60, make=lambda n: Call(f"/work?ms=20&key=b&n={n}")) as load:
        eventually(lambda: load.sent > 120, "the load is under way")
        deployment.kill(deployment.workers()[0])
        eventually(lambda: load.sent > 240, "the load goes on")
        tap = deployment.container("tap")
        deployment.kill(tap)
        eventually(lambda: load.sent > 480, "the load goes on without a tap")
        deployment.start(tap)
        eventually(lambda: load.sent > 720, "the load goes on")
        for database in deployment.containers("postgres"):
            deployment.restart(database)
        eventually(lambda: load.sent > 960, "the load goes on")
        answers = load.finish()
    assert set(load.endings()) == {"200"}
    after = at_rest(deployment, 60)
    print(f"{len(answers)} answers; before {before['total']}, after {after['total']}, gaps {after['gaps']}")
    assert changed(after, before, "debits") == changed(after, before, "credits") == len(answers)
    assert missed(after, before) == (0, 0)
    total, counted = after["total"], after["counted"]
    assert (counted["debits"], counted["first"]) == (total["debits"], total["credits"])


def test_the_command_tells_it(shared: Deployment) -> None:
    """`rabbitbal ledger balance`, `open`, `explain` and `gaps`."""
    shared.ready(workers=4)
    key = token_hex(4)
    held = Background(shared.http, Call(f"/work?ms=20000&key={key}"))

    def mine() -> list[dict[str, Any]]:
        return [e for e in ledger(shared, "open")["entries"] if key in e["target"]]

    (entry,) = eventually(lambda: [e for e in mine() if e["worker"]], "it is open, and claimed")
    told = shared.operator("ledger", "open")
    assert (told.returncode, entry["id"][:12] in told.stdout) == (0, True)
    assert held.answer().status == 200
    eventually(lambda: not mine(), "it is closed")
    told = shared.operator("ledger", "explain", entry["id"][:12])
    print(told.stdout)
    assert told.returncode == 0
    for word in ("debit", "claim", "first", key):
        assert word in told.stdout
    told = shared.operator("ledger", "balance", "--by", "worker", "--check")
    print(told.stdout)
    assert told.returncode == 0
    assert "the tables say the same" in told.stdout
    told = shared.operator("ledger", "gaps")
    assert told.returncode == 0
    assert shared.operator("ledger", "explain", "nobody").returncode == 1


def test_a_second_answer_is_a_duplicate(shared: Deployment) -> None:
    """Of a worker that was taken for lost, say: the client has the first one, and the books have both."""
    shared.ready(workers=4)
    key = token_hex(4)
    assert send(shared.http, Call(f"/work?key={key}")).status == 200
    line = shared.ended(key)
    before = at_rest(shared)
    script = (
        "import asyncio; from pathlib import Path\n"
        "from rabbitbal.runtime.broker import Publisher, Server\n"
        "from rabbitbal.wire import topology\n"
        "from rabbitbal.wire.envelope import Envelope, Kind\n"
        "from rabbitbal.wire.message import Response, encode_response\n"
        "async def answer():\n"
        "    secret = Path('/run/secrets/worker/password')\n"
        "    publisher = Publisher('twin', Server('amqp://worker@rabbitmq:5672/', secret))\n"
        "    link = asyncio.ensure_future(publisher.link.run())\n"
        "    await publisher.link.up.wait()\n"
        f"    message = Envelope(Kind.RESPONSE, '{line['id']}', 'worker-twin', pool='default')\n"
        f"    key = topology.response_key('{line['edge']}')\n"
        "    await publisher.publish(topology.RESPONSES, key, message, encode_response(Response(200)), timeout=5)\n"
        "    link.cancel()\n"
        "asyncio.run(answer())"
    )
    shared.exec(shared.workers()[0], "python", "-c", script)
    eventually(lambda: ledger(shared, "balance")["total"]["duplicates"] > before["total"]["duplicates"], "it is seen")
    answers = ledger(shared, f"requests/{line['id']}")["credits"]
    assert {credit["sender"]: credit["standing"] for credit in answers} == {
        line["worker"]: "first",
        "worker-twin": "duplicate",
    }
    assert ledger(shared, "balance")["total"]["open"] == 0


def test_an_overflowing_queue_is_a_gap_of_the_right_size(shared: Deployment) -> None:
    """While the tap is down its queue drops the oldest. What was dropped is said, and with it all requests are there:
    booked or missed, each has its debit and its ending."""
    shared.ready(workers=4)
    before = at_rest(shared)
    tap = shared.container("tap")
    shared.kill(tap)
    calls = [Call("/bytes/60000") for _ in range(2_000)]
    answers = volley(shared.http, calls, 16)
    assert Counter(answer.ending for answer in answers) == {"200": len(calls)}
    assert shared.queues()["tap.log"]["messages_ready"] < 2 * len(calls)
    shared.start(tap)
    after = at_rest(shared, 60)
    lost, lost_endings = missed(after, before)
    print(f"{len(calls)} requests; missed {lost} and {lost_endings} endings; {before['total']}, then {after['total']}")
    print(ledger(shared, "gaps?limit=5"))
    assert lost > 100
    assert changed(after, before, "debits") + lost == len(calls)
    seen = changed(after, before, "credits") + changed(after, before, "unmatched")
    assert seen + lost_endings == len(calls)


def test_an_edge_that_is_killed_leaves_entries_that_are_written_off(shared: Deployment) -> None:
    """A streamed answer's end is told by the edge alone; when that is gone, so is the end: `edge-gone`."""
    shared.ready(workers=4)
    before = at_rest(shared)
    key, edge = token_hex(4), shared.container("edge")
    broken = Background(shared.http, *(Call(f"/stream?chunks=300&ms=200&key={key}{n}") for n in range(3)))

    def mine() -> list[dict[str, Any]]:
        return [e for e in ledger(shared, "open")["entries"] if key in e["target"] and e["worker"]]

    entries = eventually(lambda: mine() if len(mine()) == 3 else [], "three streams are open")
    shared.kill(edge)
    assert all(not answer.status for answer in broken.answers())
    after = at_rest(shared, 90)
    assert changed(after, before, "written_off") == 3
    for entry in entries:
        (credit,) = ledger(shared, f"requests/{entry['id']}")["credits"]
        assert (credit["standing"], credit["reason"]) == ("written-off", "edge-gone")
