"""What the tap says of suspects: to edges over the broker, to people over HTTP, to its page."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from structlog.testing import capture_logs

from rabbitbal.runtime.broker import Disconnected
from rabbitbal.runtime.settings import SettingsError
from rabbitbal.tap import web
from rabbitbal.tap.bots import api, reporter, watcher
from rabbitbal.tap.bots.reporter import Reporter
from rabbitbal.tap.bots.service import Bots, networks
from rabbitbal.tap.settings import Settings
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.verdicts import Suspicion, Verdict, decode_verdict
from tests.bots_clients import SIGNED, Clients


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.002)


class _Link:
    def __init__(self) -> None:
        self.up = asyncio.Event()

    async def run(self) -> None:
        await asyncio.Event().wait()


class Broker:
    """Takes what is published, fails so many times before, and may be away."""

    def __init__(self, failures: int = 0) -> None:
        self.link = _Link()
        self.failures = failures
        self.came: list[tuple[str, str, Envelope, Verdict]] = []

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> None:
        if self.failures:
            self.failures -= 1
            raise Disconnected("gone", sent=True)
        self.came.append((exchange, key, envelope, decode_verdict(body)))


def verdict(client: str = "203.0.113.1") -> Verdict:
    now = int(time.time() * 1000)
    return Verdict(client, Suspicion.SUSPECT, 0.9, ("asked for /.env",), now, now + 60_000)


async def reported(
    broker: Broker, in_force: list[Verdict], *told: Verdict, period: float = 60
) -> tuple[Reporter, "asyncio.Task[None]"]:
    found = Reporter("tap-1", broker, lambda: in_force, period)  # type: ignore[arg-type]
    task = asyncio.create_task(found.run())
    for one in told:
        found.tell(one)
    return found, task


# --- to edges


async def test_a_new_verdict_is_told_at_once_under_the_taps_own_user() -> None:
    """The broker checks the user, and edges believe no other."""
    broker = Broker()
    broker.link.up.set()
    _, task = await reported(broker, [], verdict())
    await until(lambda: broker.came)
    task.cancel()
    ((exchange, key, envelope, told),) = broker.came
    assert (exchange, key) == (topology.EVENTS, topology.VERDICT_KEY)
    assert (envelope.kind, envelope.user_id, envelope.app_id) == (Kind.VERDICT, topology.TAP, "tap-1")
    assert told.client == "203.0.113.1"


async def test_what_holds_is_told_again_and_again() -> None:
    """So an edge that starts later learns of it, and one that is lost is not missed."""
    broker = Broker(failures=2)
    broker.link.up.set()
    found, task = await reported(broker, [verdict("::1"), verdict("::2")], period=0.01)
    await until(lambda: len(broker.came) >= 4)
    task.cancel()
    assert {told.client for _, _, _, told in broker.came} == {"::1", "::2"}
    assert found.lost == 2


async def test_a_broker_that_is_away_holds_up_nobody_and_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each client the newest verdict waits, and of so many clients."""
    monkeypatch.setattr(reporter, "MOST_WAITING", 3)
    broker = Broker()
    found, task = await reported(broker, [])
    for _ in range(5):
        for number in range(5):
            found.tell(verdict(f"::{number}"))
    assert found.lost == 10
    broker.link.up.set()
    await until(lambda: len(broker.came) == 3)
    task.cancel()


# --- to people


async def asked(clients: Clients, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(web.build([api.router(clients.scorer)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8081") as client:
        return await client.get(path)


@pytest.fixture
def clients() -> Clients:
    """A scanner, a crawler that signs, and somebody; at this time, as the pages look at the clock."""
    found = Clients()
    found.now = time.time()
    found.scan()
    found.ask(client="203.0.113.2", fields={"User-Agent": SIGNED})
    found.ask(client="203.0.113.3")
    found.judge()
    return found


async def test_the_list_has_suspects_with_reasons_and_crawlers(clients: Clients) -> None:
    """And says by what measure."""
    found = (await asked(clients, "/api/bots")).json()
    (suspect,) = found["suspects"]
    assert (suspect["client"], suspect["kind"], found["all_suspects"]) == ("203.0.113.1", "suspect", 1)
    assert any("/phpmyadmin/" in reason for reason in suspect["reasons"])
    assert found["crawlers"] == [{"client": "203.0.113.2", "name": "ExampleBot"}]
    assert (found["clients"], found["threshold"], found["window"]) == (3, 0.6, 120)


async def test_one_client_is_explained_signal_by_signal(clients: Clients) -> None:
    """What was counted, and what each signal adds to the score."""
    found = (await asked(clients, "/api/bots/203.0.113.1")).json()
    assert (found["counts"]["guesses"], found["counts"]["requests"], found["agent"]) == (4, 4, "")
    assert "guesses" in [one["signal"] for one in found["signals"]]
    left = 1.0
    for one in found["signals"]:
        left *= 1 - one["part"]
    assert found["score"] == pytest.approx(1 - left, abs=0.01)
    assert (await asked(clients, "/api/bots/203.0.113.3")).json()["kind"] == "human"


async def test_who_is_not_known_is_not_found(clients: Clients) -> None:
    """And what is no address is no question."""
    assert (await asked(clients, "/api/bots/203.0.113.99")).status_code == 404
    assert (await asked(clients, "/api/bots/localhost")).status_code == 422
    assert (await asked(clients, "/api/bots?limit=0")).status_code == 422


def test_the_page_shows_the_newest_suspects_with_their_strongest_reason(clients: Clients) -> None:
    """A few of them, and how many there are."""
    for number in range(10, 30):
        clients.scan(f"203.0.113.{number}")
    clients.judge()
    found = api.panel(clients.scorer)
    assert (len(found["rows"]), found["suspects"]) == (8, 21)
    client, value, reason, mark = found["rows"][0]
    assert (client, mark) == ("203.0.113.29", "failed")
    assert float(value) > 0.6
    assert reason


# --- settings


def test_networks_that_are_trusted_are_named_or_the_tap_does_not_start() -> None:
    """By one line that names the variable."""
    trusted = networks("10.0.0.0/8, 2001:db8::/32")
    assert [trusted(client) for client in ("10.1.2.3", "11.1.2.3", "2001:db8::7", "::", "....")] == [
        *(True, False, True, False, False)
    ]
    with pytest.raises(SettingsError, match="RABBITBAL_BOTS_TRUSTED"):
        Bots(replace(Settings(), bots_trusted="everybody"), "tap-1")


async def test_what_is_put_together_looks_once_a_second_and_stops() -> None:
    """Without a broker, too: it looks on."""
    bots = Bots(replace(Settings(), broker_url="amqp://tap@127.0.0.1:1/"), "tap-1")
    source = Clients()
    source.watcher, source.scorer = bots.watcher, bots.scorer
    source.now = time.time()
    source.scan()
    task = asyncio.create_task(bots.run())
    await until(lambda: bots.scorer.suspects(time.time()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_defect_of_the_scorer_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and the next second has another try."""
    monkeypatch.setattr(watcher, "PERIOD", 0.01)
    clients = Clients()
    clients.now = time.time()
    clients.scan()
    told: list[Verdict] = []
    watching = watcher.Watcher(clients.scorer, told.append)
    judge, tries = clients.scorer.judge, [1, 2]

    def failing(now: float) -> list[Verdict]:
        if tries:
            raise ZeroDivisionError(tries.pop())
        return judge(now)

    monkeypatch.setattr(clients.scorer, "judge", failing)
    with capture_logs() as logs:
        task = asyncio.create_task(watching.run())
        await until(lambda: told)
        task.cancel()
    assert [line["event"] for line in logs] == ["tap.defect", "tap.defect", "tap.suspect"]
