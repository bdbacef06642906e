"""The books as a part of the tap: batches, a database that fails, settings, and what is answered over HTTP."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from rabbitbal.runtime.settings import SettingsError, read
from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.ledger import schema
from rabbitbal.tap.ledger.api import router
from rabbitbal.tap.ledger.books import Books
from rabbitbal.tap.ledger.clock import Clock
from rabbitbal.tap.ledger.database import Database, Slow, parse
from rabbitbal.tap.ledger.retention import Retention
from rabbitbal.tap.observation import observe
from rabbitbal.tap.redaction import Redactor
from rabbitbal.tap.settings import Settings
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.figures import EdgeFigures, encode_figures
from rabbitbal.wire.message import Request, Response, encode_request, encode_response

NOW = 1_700_000_000.0


def database(path: Path) -> Database:
    url = parse(f"sqlite:///{path}")
    assert url is not None
    return Database(url)


def books(path: Path, patience: float = 30.0, up: Callable[[], bool] = lambda: True) -> Books:
    return Books(database(path), Redactor(), up, patience, Retention(3600, 1 << 30))


def see(part: Books, name: str, *, answered: bool = True, at: float = NOW) -> None:
    sent = int(at * 1000)
    request = Envelope(Kind.REQUEST, name, "edge-1", reply_to="response.edge-1", route="default", sent=sent)
    part.see(observe(at, request, encode_request(Request("GET", b"/")), None, redelivered=False, key="request.default"))
    if answered:
        response = Envelope(Kind.RESPONSE, name, "worker-1", pool="main", sent=sent)
        payload = encode_response(Response(200, [], b""))
        part.see(observe(at, response, payload, None, redelivered=False, key="response.edge-1"))


async def get(part: Books | None, path: str) -> httpx.Response:
    app = FastAPI()
    app.include_router(router(part))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://dashboard") as client:
        return await client.get(f"/api/ledger/{path}")


async def test_what_was_seen_is_there_when_commit_returns(tmp_path: Path) -> None:
    """Another tap finds it: the open request goes back to the access log."""
    first = books(tmp_path / "l.db")
    await first.prepare()
    see(first, "answered")
    see(first, "open", answered=False)
    await first.commit()
    first.close()
    second = books(tmp_path / "l.db")
    await second.prepare()
    access = AccessLog(10, Redactor())
    access.restore(await second.open_lines(10))
    answer = Envelope(Kind.RESPONSE, "open", "worker-1", pool="main", sent=int(NOW * 1000) + 5)
    payload = encode_response(Response(200, [], b""))
    line = access.see(observe(NOW, answer, payload, None, redelivered=False))
    assert line is not None
    assert (line["method"], line["edge"], line["total_ms"], len(access)) == ("GET", "edge-1", 5, 0)
    second.close()


async def test_a_database_that_comes_back_in_time_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch waits for it; the outage is told once."""
    directory = tmp_path / "volume"
    part = books(directory / "l.db")
    see(part, "a")
    task = asyncio.create_task(part.commit())
    await asyncio.wait({task}, timeout=0.25)
    assert part.state()["down"]
    see(part, "b")
    directory.mkdir()
    await task
    assert (part.state(), part.booked) == ({"booked": 4, "given_up": 0, "down": False}, 4)
    assert capsys.readouterr().out.count("ledger.down") == 1
    part.close()


async def test_a_batch_that_waits_too_long_is_given_up_and_said(tmp_path: Path) -> None:
    """So that the tap goes on; a gap says how much it was, once the database is back."""
    directory = tmp_path / "volume"
    part = books(directory / "l.db", patience=0.2)
    see(part, "a")
    see(part, "b", answered=False)
    await part.commit()
    assert part.given_up == 3
    see(part, "c")
    await part.commit()
    assert part.given_up == 5
    directory.mkdir()
    part._next_try = 0.0
    see(part, "d")
    await part.commit()
    gaps = (await get(part, "gaps")).json()["gaps"]
    assert [(gap["edge"], gap["debits"], gap["credits"], gap["cause"]) for gap in gaps] == [
        ("edge-1", 3, 2, "ledger-down")
    ]
    total = (await get(part, "balance")).json()["total"]
    assert (total["debits"], total["credits"]) == (1, 1)
    part.close()


async def test_a_defect_in_booking_costs_a_batch_and_not_the_tap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same messages would come again and again; they are counted as missed, and what comes next is booked."""
    part = books(tmp_path / "l.db")
    with monkeypatch.context() as patch:
        patch.setattr("rabbitbal.tap.ledger.batch.book", lambda *_: 1 // 0)
        see(part, "a")
        await part.commit()
    see(part, "b")
    await part.commit()
    gaps = (await get(part, "gaps")).json()["gaps"]
    assert [(gap["debits"], gap["credits"]) for gap in gaps] == [(1, 1)]
    assert (await get(part, "balance")).json()["total"]["debits"] == 1
    part.close()


async def test_an_edge_that_boasts_breaks_no_sum(tmp_path: Path) -> None:
    """Counts of 63 bits, twice, would not fit into one of 64."""
    part = books(tmp_path / "l.db")
    for since in range(3):
        figures = EdgeFigures(int(NOW * 1000) + since, since, (1 << 63) - 1, (1 << 63) - 1, (1 << 63) - 1, 0, None)
        message = Envelope(Kind.FIGURES, "figures", "edge-1")
        part.see(observe(NOW, message, encode_figures(figures), None, redelivered=False))
        await part.commit()
    assert (await get(part, "balance")).status_code == 200
    part.close()


async def test_figures_of_an_edge_are_compared(tmp_path: Path) -> None:
    """What it has opened and the tap did not see is a gap; a tap that has just begun says that it was down."""
    part = books(tmp_path / "l.db")
    await part.tick()
    for at in (1, 2, 3):
        figures = EdgeFigures(int(NOW * 1000) + at, 1 << 50, 5, 5, 0, 0, None)
        part.see(
            observe(NOW, Envelope(Kind.FIGURES, "figures", "edge-1"), encode_figures(figures), None, redelivered=False)
        )
        await part.commit()
    gaps = (await get(part, "gaps")).json()["gaps"]
    assert [(gap["debits"], gap["credits"], gap["cause"]) for gap in gaps] == [(5, 5, "tap-down")]
    part.close()


async def test_the_answers_over_http(tmp_path: Path) -> None:
    """Balance, open entries and a story; what makes no sense is refused."""
    part = books(tmp_path / "l.db")
    see(part, "c0ffee01")
    see(part, "c0ffee02", answered=False)
    await part.commit()
    balance = (await get(part, "balance?by=worker&check=true")).json()
    assert (balance["balanced"], balance["total"]["open"], balance["counted"]["debits"]) == (False, 1, 2)
    assert {row["name"]: row["open"] for row in balance["accounts"]} == {"-": 1, "worker-1": 0}
    entries = (await get(part, "open")).json()
    assert [entry["id"] for entry in entries["entries"]] == ["c0ffee02"]
    assert (await get(part, "requests/c0ffee01")).json()["credits"][0]["standing"] == "first"
    paths = (
        "requests/c0ffee",
        "requests/nobody",
        "requests/c0ff",
        "balance?by=edge",
        "balance?limit=0",
        "open?limit=1001",
    )
    assert [(await get(part, path)).status_code for path in paths] == [409, 404, 422, 422, 422, 422]
    assert (await get(None, "balance")).status_code == 404
    part.close()


async def test_a_database_that_cannot_be_asked_says_nothing_of_clients(tmp_path: Path) -> None:
    """503, and no word of what the database said."""
    part = books(tmp_path / "none" / "l.db")
    answer = await get(part, "balance")
    assert (answer.status_code, "sqlite" in answer.text.lower()) == (503, False)
    part.close()


def test_a_question_that_takes_too_long_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one who looks would wait, and others behind him."""
    monkeypatch.setattr("rabbitbal.tap.ledger.database.QUESTION", 0.05)
    base = database(tmp_path / "l.db")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Slow):
        base.asked(lambda connection: connection.exec_driver_sql(endless).all())
    base.close()


def test_a_ledger_of_a_newer_tap_is_left_alone(tmp_path: Path) -> None:
    """With a sentence that says what to do."""
    base = database(tmp_path / "l.db")
    base.written(lambda connection: connection.execute(schema.meta.update().values(value="99")))
    base.close()
    with pytest.raises(SettingsError, match="RABBITBAL_LEDGER_URL names a ledger of version 99"):
        database(tmp_path / "l.db").written(lambda connection: None)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://a:s3cret@b/c",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://u:s3cret@/",
        "postgresql://u:s3cret@h:x/d",
    ],
)
def test_a_bad_url_names_its_variable_and_no_password(url: str) -> None:
    """One line for the operator, when the tap starts."""
    with pytest.raises(SettingsError, match="RABBITBAL_LEDGER_URL") as error:
        read(Settings, {"RABBITBAL_LEDGER_URL": url})
    assert "s3cret" not in str(error.value)


def test_the_password_comes_from_a_file(tmp_path: Path) -> None:
    """One that cannot be read is named by its variable."""
    (tmp_path / "password").write_text("s3cret\n")
    url = parse("postgresql://u@h/d", tmp_path / "password")
    assert url is not None
    assert (url.password, url.drivername) == ("s3cret", "postgresql+psycopg")
    with pytest.raises(SettingsError, match="RABBITBAL_LEDGER_PASSWORD_FILE"):
        parse("postgresql://u@h/d", tmp_path / "none")
    assert parse("none") is None


@pytest.mark.parametrize(
    ("age", "seconds"), [("90", 90.0), ("90s", 90.0), ("2m", 120.0), ("12h", 43200.0), ("7d", 604800.0)]
)
def test_an_age_has_a_unit(age: str, seconds: float) -> None:
    """Seconds where it has none."""
    assert read(Settings, {"RABBITBAL_LEDGER_AGE": age}).ledger_seconds() == seconds


async def test_a_file_shrinks_when_requests_are_forgotten(tmp_path: Path) -> None:
    """Its empty pages go back to the file system."""
    part = books(tmp_path / "l.db")
    for number in range(2_000):
        see(part, f"r{number}")
    await part.commit()
    pages = "PRAGMA page_count"
    before = part.database.written(lambda connection: connection.exec_driver_sql(pages).scalar_one())
    assert await Retention(0, 1 << 30).look(part.database) == 2_000
    assert part.database.written(lambda connection: connection.exec_driver_sql(pages).scalar_one()) < before / 2
    part.close()


# --- the clock of the messages


def test_the_clock_goes_by_messages_and_not_by_the_hour() -> None:
    """A tap that was down for ten minutes reads on where it stopped; what lies between is no silence of anybody."""
    clock = Clock()
    clock.broken(0)
    clock.read(1_000_000, 1_000_000)
    clock.read(1_001_000, 1_001_000)
    assert (clock.newest, clock.since) == (1_001_000, 1_000_000)
    clock.read(1_601_000, 1_601_000)
    assert (clock.newest, clock.since) == (1_601_000, 1_601_000)


def test_a_message_from_the_future_does_not_move_the_clock_far() -> None:
    """Five seconds: clocks differ."""
    clock = Clock()
    clock.read(1_000_000, 9_000_000)
    assert clock.newest == 1_005_000


def test_the_clock_goes_on_where_nobody_says_anything() -> None:
    """But only while the tap is connected and has nothing left to do."""
    clock = Clock()
    clock.read(1_000_000, 1_000_000)
    clock.tick(1_006_000, drained=False)
    assert clock.newest == 1_000_000
    clock.tick(1_006_000, drained=True)
    assert (clock.newest, clock.since) == (1_006_000, 1_000_000)


async def test_a_file_that_is_removed_under_the_tap_does_not_end_it(tmp_path: Path) -> None:
    """It is a database that fails, like others."""
    directory = tmp_path / "volume"
    directory.mkdir()
    part = books(directory / "l.db", patience=0.2)
    see(part, "a")
    await part.commit()
    shutil.rmtree(directory)
    see(part, "b")
    await part.commit()
    assert part.booked + part.given_up == 4
    part.close()
