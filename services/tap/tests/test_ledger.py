"""The books: whatever comes in whatever order, twice or not at all, debits and credits must say the same.

On files of SQLite; with RABBITBAL_TEST_LEDGER_URL the same on that database (PostgreSQL), which is emptied.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rabbitbal.tap.ledger import edges, queries, retention, schema
from rabbitbal.tap.ledger.batch import Batch, Missed, Told
from rabbitbal.tap.ledger.clock import Clock
from rabbitbal.tap.ledger.database import Database, parse
from rabbitbal.tap.ledger.postings import postings
from rabbitbal.tap.observation import observe
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.figures import EdgeFigures
from rabbitbal.wire.message import Request, Response, encode_request, encode_response
from rabbitbal.wire.reasons import Reason

URLS = ["sqlite", *filter(None, [os.environ.get("RABBITBAL_TEST_LEDGER_URL")])]
REDACTOR = Redactor()
REQUEST = encode_request(
    Request("GET", b"/a?token=t0p&b=c", [(b"Host", b"example.org"), (b"X-Forwarded-For", b"203.0.113.7")])
)
RESPONSE = encode_response(Response(200, [], b"hello"))


def request(name: str, attempt: int = 1, edge: str = "edge-1", sent: int = 1_000) -> Envelope:
    reply_to = f"response.{edge}"
    return Envelope(Kind.REQUEST, name, edge, reply_to=reply_to, attempt=attempt, route="default", sent=sent)


def response(name: str, worker: str = "worker-1", attempt: int = 1, reason: Reason | None = None) -> Envelope:
    return Envelope(
        Kind.RESPONSE, name, worker, pool="main", duration=9_000, sent=1_250, attempt=attempt, reason=reason
    )


def head(name: str, worker: str = "worker-1", attempt: int = 1) -> Envelope:
    return replace(response(name, worker, attempt), more=True)


def ended(name: str, reason: Reason | None = None, attempt: int = 1, edge: str = "edge-1") -> Envelope:
    return Envelope(
        Kind.ENDED,
        name,
        edge,
        attempt=attempt,
        reason=reason,
        status=504,
        size=3,
        duration=1_000,
        sent=1_300,
        route="default",
    )


def payload(envelope: Envelope) -> bytes:
    return {Kind.REQUEST: REQUEST, Kind.RESPONSE: RESPONSE}.get(envelope.kind, b"")


@dataclass
class Ledger:
    """The books, one batch at a time."""

    database: Database
    clock: Clock
    begun: int = 500
    now: int = 1_000_000

    def book(self, *envelopes: Envelope, body: bytes | None = None) -> None:
        batch = Batch()
        for envelope in envelopes:
            self.add(batch, envelope, body)
        self.write(batch)

    def add(self, batch: Batch, envelope: Envelope, body: bytes | None = None) -> None:
        key = "response.edge-1" if envelope.kind is Kind.RESPONSE else "request.default"
        content = payload(envelope) if body is None else body
        seen = observe(self.now / 1000, envelope, content, None, redelivered=False, key=key)
        for posting in postings(seen, REDACTOR):
            batch.add(posting, self.now)

    def figures(self, edge: str = "edge-1", cause: str = "lost", **told: Any) -> None:
        batch = Batch()
        given: dict[str, Any] = {"since": 600, "untold": 0, "pending": 0, "oldest": None, **told}
        batch.tell(Told(edge, EdgeFigures(**given), cause), self.now)
        self.write(batch)

    def write(self, batch: Batch) -> None:
        self.database.written(lambda connection: batch.write(connection, self.begun, self.now))

    def total(self) -> dict[str, Any]:
        return dict(self.balance()["total"])

    def balance(self, by: str | None = None, limit: int = 50) -> dict[str, Any]:
        found: dict[str, Any] = self.database.asked(lambda c: queries.balance(c, by, limit, check=True))
        return found

    def sums(self) -> tuple[int, ...]:
        """Debits, credits, open, duplicates, late, unmatched, written off."""
        names = ("debits", "credits", "open", "duplicates", "late", "unmatched", "written_off")
        return tuple(self.total()[name] for name in names)

    def standings(self, name: str) -> dict[str, str]:
        """Of each credit, by who sent it."""
        story = self.database.asked(lambda connection: queries.story(connection, name))
        assert story is not None
        return {credit["sender"]: credit["standing"] for credit in story["credits"]}

    def gaps(self) -> list[tuple[int, int, str]]:
        found = self.database.asked(lambda connection: queries.gaps(connection, 100))
        return [(gap["debits"], gap["credits"], gap["cause"]) for gap in reversed(found)]

    def check(self) -> None:
        """The accounts say what the tables say, and each kind of account says what the total says."""
        balance = self.balance()
        total, counted = balance["total"], balance["counted"]
        assert total["debits"] == counted["debits"] == total["credits"] + total["written_off"] + total["open"]
        names = {"first": "credits", "written-off": "written_off", "duplicate": "duplicates"}
        for standing, number in counted.items():
            assert total[names.get(standing, standing)] == number
        assert sum(total["endings"].values()) == total["credits"] + total["written_off"]
        open_ = self.database.asked(lambda connection: queries.open_entries(connection, 1, 0))["open"]
        assert open_ == total["open"]
        for kind in ("route", "pool", "worker", "client"):
            rows = self.balance(kind, 1000)["accounts"]
            for column in ("debits", "credits", "duplicates", "late", "unmatched", "written_off", "open"):
                assert sum(row[column] for row in rows) == total[column], (kind, column)


@pytest.fixture(params=URLS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Ledger]]:
    """New books, as often as they are asked for."""
    databases: list[Database] = []

    def new() -> Ledger:
        text = request.param
        url = parse(f"sqlite:///{tmp_path}/{uuid4().hex}.db" if text == "sqlite" else text)
        assert url is not None
        database = Database(url)
        databases.append(database)
        if not database.sqlite:
            with database._writer.begin() as connection:
                connection.exec_driver_sql("DROP VIEW IF EXISTS access_log")
                schema.metadata.drop_all(connection)
        return Ledger(database, Clock())

    yield new
    for database in databases:
        database.close()


@pytest.fixture
def ledger(opened: Callable[[], Ledger]) -> Ledger:
    return opened()


def test_a_request_and_its_answer_balance(ledger: Ledger) -> None:
    """Booked in one batch or in two, in all accounts that they concern."""
    ledger.book(request("a"), response("a"), request("b"))
    assert ledger.sums() == (2, 1, 1, 0, 0, 0, 0)
    ledger.book(response("b"))
    assert ledger.sums() == (2, 2, 0, 0, 0, 0, 0)
    for kind, name in (("route", "default"), ("pool", "main"), ("worker", "worker-1"), ("client", "203.0.113.7")):
        rows = {row["name"]: row for row in ledger.balance(kind)["accounts"]}
        assert (rows[name]["debits"], rows[name]["credits"], rows[name]["endings"]) == (2, 2, {"answered": 2})
    ledger.check()


def test_a_repeated_message_changes_nothing(ledger: Ledger) -> None:
    """A tap that was killed reads again what it had booked, whole or in part."""
    ledger.book(request("a"), head("a"), response("b"), ended("a"))
    before = (ledger.balance(), ledger.balance("worker"))
    for again in ([request("a")], [ended("a")], [response("b"), response("b")], [head("a"), request("a"), ended("a")]):
        ledger.book(*again)
    assert before == (ledger.balance(), ledger.balance("worker"))
    ledger.check()


def test_a_head_that_comes_before_its_request_tells_the_worker(ledger: Ledger) -> None:
    """And a claim that comes again tells nothing new, whoever has the request now."""
    ledger.book(head("a"))
    ledger.book(request("a"))
    assert [row["name"] for row in ledger.balance("worker")["accounts"]] == ["worker-1"]
    ledger.book(head("a", "worker-2"))
    ledger.book(head("a"))
    assert [row["name"] for row in ledger.balance("worker")["accounts"] if row["debits"]] == ["worker-2"]
    ledger.check()


def test_two_answers_of_one_request_are_a_duplicate(ledger: Ledger) -> None:
    """Of another worker, or of another attempt of the same."""
    ledger.book(request("a"), response("a"))
    ledger.book(response("a", "worker-2"))
    assert ledger.standings("a") == {"worker-1": "first", "worker-2": "duplicate"}
    ledger.book(request("b"), response("b", attempt=1), response("b", attempt=2))
    assert ledger.sums() == (2, 2, 0, 2, 0, 0, 0)
    rows = {row["name"]: row["duplicates"] for row in ledger.balance("worker")["accounts"]}
    assert rows == {"worker-1": 1, "worker-2": 1}
    ledger.check()


@pytest.mark.parametrize("reason", [Reason.WORKER_TIMEOUT, Reason.QUEUE_TIMEOUT, Reason.CLIENT_GONE, Reason.SUPERSEDED])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_answer_of_a_request_that_the_edge_ended_is_late(
    ledger: Ledger, reason: Reason, order: tuple[int, int]
) -> None:
    """Also where the tap reads the answer first: the client got what the edge says."""
    messages = (ended("a", reason), response("a"))
    ledger.book(request("a"))
    for number in order:
        ledger.book(messages[number])
    assert ledger.standings("a") == {"edge-1": "first", "worker-1": "late"}
    assert ledger.total()["endings"] == {reason.value: 1}
    ledger.check()


def test_a_credit_whose_debit_comes_later_is_matched(ledger: Ledger) -> None:
    """Unmatched until then."""
    ledger.book(response("a"))
    assert ledger.sums() == (0, 0, 0, 0, 0, 1, 0)
    ledger.book(request("a"))
    assert ledger.sums() == (1, 1, 0, 0, 0, 0, 0)
    ledger.check()


def test_a_streamed_response_is_credited_by_the_edge(ledger: Ledger) -> None:
    """Its head is no credit. It tells the worker and the pool, which the edge does not."""
    ledger.book(request("a"), head("a"))
    assert ledger.sums() == (1, 0, 1, 0, 0, 0, 0)
    ledger.book(ended("a"))
    (row,) = (row for row in ledger.balance("worker")["accounts"] if row["debits"])
    assert (row["name"], row["credits"]) == ("worker-1", 1)
    ledger.check()


def test_an_ending_that_brings_its_request_is_both(ledger: Ledger) -> None:
    """No copy of it came to a pool. One that was refused before it had a route brings nothing, and is a request."""
    ledger.book(ended("a", Reason.UNROUTABLE), body=REQUEST)
    ledger.book(replace(ended("b", Reason.HEADER_TOO_LARGE), route=None))
    assert ledger.sums() == (2, 2, 0, 0, 0, 0, 0)
    ledger.check()


def test_an_answer_that_is_no_http_is_a_credit(ledger: Ledger) -> None:
    """The envelope says whose it is; the edge ends the request by it."""
    ledger.book(request("a"))
    ledger.book(response("a"), body=b"nonsense")
    assert ledger.total()["endings"] == {"bad-response": 1}
    ledger.check()


def test_a_worker_lost_of_an_attempt_that_was_given_up_gives_way(ledger: Ledger) -> None:
    """The edge had given the request to another worker, and waits for that one."""
    ledger.book(request("a"), request("a", 2), response("a", "worker-1", 1, Reason.WORKER_LOST))
    ledger.book(response("a", "worker-2", 2))
    assert ledger.standings("a") == {"worker-1": "duplicate", "worker-2": "first"}
    assert ledger.total()["endings"] == {"answered": 1}
    ledger.check()


# --- any order, any loss, any repetition

_NAMES = st.sampled_from(["a", "b", "c"])
_ATTEMPTS = st.integers(1, 3)
_MESSAGES = st.one_of(
    st.builds(request, _NAMES, _ATTEMPTS),
    st.builds(
        response,
        _NAMES,
        st.sampled_from(["worker-1", "worker-2"]),
        _ATTEMPTS,
        st.sampled_from([None, Reason.WORKER_LOST]),
    ),
    st.builds(head, _NAMES, st.just("worker-1"), _ATTEMPTS),
    st.builds(ended, _NAMES, st.sampled_from([None, Reason.CLIENT_GONE]), _ATTEMPTS),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(_MESSAGES, max_size=6), max_size=5), data=st.data())
def test_the_books_hold_whatever_comes(
    opened: Callable[[], Ledger], batches: list[list[Envelope]], data: st.DataObject
) -> None:
    """Any interleaving, repetition and loss: debits are credits, write-offs and what is open; each account says so; and
    messages that come again change nothing."""
    ledger = opened()
    ledger.book()
    for batch in batches:
        ledger.book(*batch)
        ledger.check()
    if batches:
        before = (ledger.balance(), ledger.balance("worker"), ledger.balance("pool"))
        ledger.book(*data.draw(st.lists(st.sampled_from([m for b in batches for m in b] or [request("z")]))))
        if any(batches):
            assert before == (ledger.balance(), ledger.balance("worker"), ledger.balance("pool"))
    ledger.now += 100_000
    ledger.figures(at=ledger.now, opened=0, closed=0)
    ledger.figures(at=ledger.now + 1, opened=0, closed=0)
    assert ledger.total()["open"] == 0
    ledger.check()
    ledger.database.close()


# --- gaps


_DEEDS = st.tuples(st.sampled_from(["open", "close", "close", "figures"]), st.booleans())


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deeds=st.lists(_DEEDS, max_size=25))
def test_booked_and_missed_are_what_the_edge_counted(
    opened: Callable[[], Ledger], deeds: list[tuple[str, bool]]
) -> None:
    """Whichever messages are lost: at rest debits and those missed are the requests, and endings that were seen and
    those missed are the endings. Nothing is called missing that was seen."""
    ledger, at, pending, number, closed = opened(), 10_000, [], 0, 0
    ledger.figures(at=at, opened=0, closed=0)
    for deed, lost in deeds:
        at += 2_000
        if deed == "open":
            pending.append(f"r{number}")
            number += 1
            message = request(pending[-1], sent=at)
        elif deed == "close" and pending:
            name = pending.pop(0)
            closed += 1
            message = response(name) if closed % 2 else ended(name, Reason.CLIENT_GONE)
        else:
            ledger.figures(
                at=at, opened=number, closed=closed, pending=len(pending), oldest=at - 1 if pending else None
            )
            continue
        if not lost:
            ledger.book(message)
    for _ in range(3):
        at += 2_000
        ledger.figures(at=at, opened=number, closed=closed, pending=len(pending), oldest=at - 1 if pending else None)
    gaps = ledger.gaps()
    missed = (sum(gap[0] for gap in gaps), sum(gap[1] for gap in gaps))
    total = ledger.total()
    assert total["debits"] + missed[0] == number
    assert total["credits"] + total["unmatched"] + missed[1] == closed
    ledger.check()
    ledger.database.close()


def test_what_an_edge_counts_and_nobody_saw_is_a_gap(ledger: Ledger) -> None:
    """Said when it is missing still at the next figures, once, with its number and why."""
    ledger.figures(at=1_000, opened=0, closed=0)
    ledger.book(*(request(f"r{n}") for n in range(3)), *(response(f"r{n}") for n in range(2)))
    ledger.figures(at=3_000, opened=10, closed=9, pending=1, oldest=900)
    assert ledger.gaps() == []
    ledger.figures(at=5_000, opened=10, closed=9, pending=1, oldest=900, cause="overflow")
    ledger.figures(at=7_000, opened=10, closed=9, pending=1, oldest=900)
    assert ledger.gaps() == [(7, 7, "overflow")]
    ledger.check()


def test_what_is_under_way_is_no_gap(ledger: Ledger) -> None:
    """It is missing at one moment, and there at the next."""
    ledger.figures(at=1_000, opened=0, closed=0)
    ledger.figures(at=3_000, opened=2, closed=1, pending=1, oldest=2_900)
    ledger.book(request("a"), request("b"), response("a"), response("b"))
    ledger.figures(at=5_000, opened=2, closed=2)
    ledger.figures(at=7_000, opened=2, closed=2)
    assert ledger.gaps() == []


def test_what_comes_after_all_is_taken_back(ledger: Ledger) -> None:
    """At rest, when the numbers are exact."""
    for at in (1_000, 3_000, 5_000):
        ledger.figures(at=at, opened=2, closed=0, pending=2, oldest=500)
    ledger.book(request("a"), request("b"))
    for at in (7_000, 9_000):
        ledger.figures(at=at, opened=2, closed=0, pending=2, oldest=500)
    assert ledger.gaps() == [(2, 0, "lost"), (-2, 0, "found")]


def test_an_edge_that_was_there_before_the_books(ledger: Ledger) -> None:
    """What it did before is said, and not called lost."""
    ledger.figures(at=1_000, since=100, opened=5_000, closed=4_990)
    ledger.figures(at=3_000, since=100, opened=5_000, closed=4_990)
    assert ledger.gaps() == [(5_000, 4_990, "before")]


def test_endings_that_the_edge_could_not_tell_are_of_their_own(ledger: Ledger) -> None:
    """Nobody lost them on the way."""
    ledger.figures(at=1_000, opened=0, closed=0)
    ledger.book(request("a"))
    for at in (3_000, 5_000, 7_000):
        ledger.figures(at=at, opened=1, closed=1, untold=1)
    assert ledger.gaps() == [(0, 1, "untold")]
    assert ledger.sums() == (1, 0, 0, 0, 0, 0, 1)
    ledger.check()


def test_a_response_whose_request_was_lost_counts_as_seen(ledger: Ledger) -> None:
    """Its routing key names the edge: one debit is missing, and no credit."""
    ledger.figures(at=1_000, opened=0, closed=0)
    ledger.book(response("a"))
    for at in (3_000, 5_000):
        ledger.figures(at=at, opened=1, closed=1)
    assert ledger.gaps() == [(1, 0, "lost")]


def test_an_entry_older_than_all_that_is_pending_is_written_off(ledger: Ledger) -> None:
    """Not before the next figures, and not one that is pending. An answer that comes after all takes its place."""
    ledger.book(request("old", sent=1_000), request("young", sent=9_000))
    ledger.figures(at=10_000, opened=2, closed=1, pending=1, oldest=9_000)
    assert ledger.sums() == (2, 0, 2, 0, 0, 0, 0)
    ledger.figures(at=12_000, opened=2, closed=1, pending=1, oldest=9_000)
    assert ledger.sums() == (2, 0, 1, 0, 0, 0, 1)
    assert ledger.total()["endings"] == {"unseen": 1}
    ledger.check()
    ledger.book(response("old"))
    assert ledger.standings("old") == {"worker-1": "first", "ledger": "reversed"}
    assert ledger.sums() == (2, 1, 1, 0, 0, 0, 0)
    ledger.check()


def test_entries_of_an_edge_that_is_silent_are_written_off(ledger: Ledger) -> None:
    """When messages of thirty seconds were read and none was its own."""
    clock = ledger.clock
    clock.broken(0)
    clock.read(1_000_000, 1_000_000)
    ledger.book(request("a"), request("b", edge="edge-2"))
    for second in range(1_001, 1_029):
        clock.read(second * 1000, second * 1000)
    assert ledger.database.written(lambda c: edges.write_off_gone(c, clock, ledger.now)) == 0
    ledger.now = 1_029_000
    ledger.figures("edge-2", at=5_000, opened=1, closed=0, pending=1, oldest=1_000)
    clock.read(1_030_000, 1_030_000)
    assert ledger.database.written(lambda c: edges.write_off_gone(c, clock, ledger.now)) == 1
    assert ledger.standings("a") == {"ledger": "written-off"}
    assert ledger.total()["endings"] == {"edge-gone": 1}
    ledger.check()


def test_an_edge_that_has_left_is_gone_soon(ledger: Ledger) -> None:
    """It has said that these are its last figures; what is under way has four seconds."""
    clock = ledger.clock
    clock.read(1_000_000, 1_000_000)
    ledger.book(request("a"))
    ledger.figures(at=2_000, opened=1, closed=0, pending=1, oldest=1_000, leaving=True)
    clock.read(1_003_000, 1_003_000)
    assert ledger.database.written(lambda c: edges.write_off_gone(c, clock, ledger.now)) == 0
    clock.read(1_004_000, 1_004_000)
    assert ledger.database.written(lambda c: edges.write_off_gone(c, clock, ledger.now)) == 1


def test_a_batch_that_was_given_up_is_a_gap_once(ledger: Ledger) -> None:
    """The edge's own count finds nothing more missing."""
    ledger.figures(at=1_000, opened=0, closed=0)
    lost = Batch()
    ledger.add(lost, request("a"))
    ledger.add(lost, request("b"))
    ledger.add(lost, response("a"))
    missed = Missed()
    missed.add(lost.missed(), 900)
    ledger.database.written(lambda connection: missed.write(connection, ledger.now))
    for at in (3_000, 5_000, 7_000):
        ledger.figures(at=at, opened=2, closed=1, pending=1, oldest=500)
    assert ledger.gaps() == [(2, 1, "ledger-down")]


# --- retention and questions


def test_what_is_deleted_is_carried_forward(ledger: Ledger) -> None:
    """The balance stays; what is open stays."""
    ledger.book(*(request(f"r{n}") for n in range(9)), *(response(f"r{n}") for n in range(6)), response("x"))
    ledger.book(response("r0", "worker-2"))
    before = ledger.total()
    assert ledger.database.written(lambda connection: retention.forget(connection, ledger.now + 1)) == 6
    ledger.database.written(lambda connection: retention._tidy(connection, ledger.now + 1))
    assert ledger.total() == before
    assert ledger.database.written(lambda connection: schema.count(connection, schema.debit)) == 3
    assert ledger.database.written(lambda connection: schema.count(connection, schema.credit)) == 0
    ledger.check()


async def test_what_is_too_large_makes_room(ledger: Ledger) -> None:
    """The oldest goes, a tenth at a time, and no more than is needed."""
    for portion in range(4):
        ledger.now += 1
        ledger.book(*(e for n in range(500) for e in (request(f"r{portion}-{n}"), response(f"r{portion}-{n}"))))
    size = ledger.database.written(retention.used)
    keeper = retention.Retention(age=1e10, size=size - 1)
    ledger.now = 1_000_000
    assert await keeper.look(ledger.database) == retention.PORTION
    kept = (
        ledger.database.asked(lambda c: queries.story(c, "r0-1")),
        ledger.database.asked(lambda c: queries.story(c, "r3-1")),
    )
    assert [story is None for story in kept] == [True, False]
    assert await keeper.look(ledger.database) == 0
    ledger.check()


def test_accounts_of_strangers_are_folded(ledger: Ledger) -> None:
    """Those that owe nothing, the longest untouched first; their sums stay."""
    for n in range(5):
        ledger.now += 1
        ledger.book(request(f"r{n}"), response(f"r{n}", f"worker-{n}"))
    ledger.database.written(lambda connection: retention.fold(connection, "worker", 2))
    rows = {row["name"]: row["debits"] for row in ledger.balance("worker")["accounts"]}
    assert rows == {"(others)": 3, "worker-3": 1, "worker-4": 1}
    ledger.check()


def test_a_story_is_found_by_its_beginning(ledger: Ledger) -> None:
    """All that is known, less what must not be stored; one that is not unique is refused."""
    ledger.book(request("c0ffee01"), replace(head("c0ffee01"), kind=Kind.CLAIM, more=None), response("c0ffee01"))
    ledger.book(request("c0ffee99"), response("deadbeef"))
    ask = ledger.database.asked
    story = ask(lambda connection: queries.story(connection, "c0ffee0"))
    assert story is not None
    assert story["debit"]["target"] == "/a?token=[redacted]&b=c"
    assert [step["kind"] for step in story["steps"]] == ["claim"]
    assert [credit["standing"] for credit in story["credits"]] == ["first"]
    with pytest.raises(queries.Ambiguous):
        ask(lambda connection: queries.story(connection, "c0ffee"))
    unmatched = ask(lambda connection: queries.story(connection, "deadbe"))
    assert unmatched is not None
    assert unmatched["debit"] is None
    assert ask(lambda connection: queries.story(connection, "nobody")) is None


def test_the_access_log_is_a_table(ledger: Ledger) -> None:
    """One row for each request that has ended, with the names of the access line."""
    ledger.book(request("a"), response("a"), request("b"))
    with ledger.database._reader.connect() as connection:
        (row,) = connection.exec_driver_sql("SELECT * FROM access_log").mappings()
    assert (row["id"], row["method"], row["status"], row["worker"], row["total_ms"]) == (
        "a",
        "GET",
        200,
        "worker-1",
        250,
    )
    assert (float(row["app_ms"]), float(row["queue_ms"])) == (9.0, 241.0)


def test_open_requests_are_given_back_to_the_access_log(ledger: Ledger) -> None:
    """With the head of a streamed answer, so that the next tap's lines are whole."""
    ledger.book(request("a"), head("a"), request("b"), response("b"))
    ((name, sent, line, envelope),) = ledger.database.asked(lambda connection: queries.open_lines(connection, 10))
    assert (name, sent, line["target"], line["edge"]) == ("a", 1_000, "/a?token=[redacted]&b=c", "edge-1")
    assert envelope is not None
    assert (envelope.app_id, envelope.duration, envelope.pool) == ("worker-1", 9_000, "main")


def test_a_hostile_text_is_stored_as_far_as_it_can_be(ledger: Ledger) -> None:
    """Zeros, broken UTF-8, and lengths without end."""
    fields = [(b"User-Agent", b"\xff\xfe" * 2000), (b"Host", b"x" * 3000)]
    ledger.book(request("a\0\ud800"), body=encode_request(Request("GET", b"/\xff", fields)))
    ((_, _, line, _),) = ledger.database.asked(lambda connection: queries.open_lines(connection, 10))
    assert len(line["host"]) == len(line["agent"]) == 500
