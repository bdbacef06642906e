"""What the operator asks the tap, and what it must not be believed in."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from rabbitbal.operator import ledger_commands
from rabbitbal.operator import tap as module
from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.tap import Tap

TOTAL = {
    "debits": 10, "credits": 8, "open": 1, "duplicates": 0, "late": 2, "unmatched": 0, "written_off": 1,
    "endings": {"answered": 7, "client-gone": 1, "unseen": 1},
}  # fmt: skip
CREDIT = {
    "kind": "response", "attempt": 1, "sender": "worker-1", "at": 1_700_000_000_250, "sent": None, "edge": "edge-1",
    "status": 200, "reason": None, "worker": "worker-1", "pool": "default", "bytes": 5, "app_us": 9_000,
    "total_us": None, "standing": "first",
}  # fmt: skip
DEBIT = {
    "at": 1_700_000_000_000, "sent": 1_700_000_000_000, "edge": "edge-1", "route": "default", "client": "203.0.113.7",
    "method": "GET", "target": "/a\x1b[2J", "host": "example.org", "agent": None, "leg": None, "closed": True,
}  # fmt: skip
GAP = {
    "number": 1,
    "at": 1_700_000_001_000,
    "after": None,
    "edge": "edge-1",
    "debits": 3,
    "credits": 2,
    "cause": "overflow",
}
PAGES: dict[str, Any] = {
    "/api/ledger/balance": {"total": TOTAL, "gaps": {"overflow": {"debits": 3, "credits": 2}}, "balanced": False},
    "/api/ledger/open": {
        "open": 7,
        "entries": [
            {
                "id": "c0ffee01", "age_ms": 1500, "attempt": 2, "method": "GET", "target": "/slow", "route": "default",
                "edge": "edge-1", "pool": None, "worker": "worker-1",
            }
        ],
    },
    "/api/ledger/requests/c0ffee": {
        "id": "c0ffee01",
        "debit": DEBIT,
        "steps": [{"kind": "claim", "attempt": 1, "sender": "worker-1", "at": 1_700_000_000_100, "pool": "default"}],
        "credits": [CREDIT],
        "gaps": [GAP],
    },
    "/api/ledger/gaps": {"gaps": [GAP]},
}  # fmt: skip


def tap(answer: Callable[[httpx.Request], httpx.Response]) -> Tap:
    return Tap("http://dashboard:8081/", httpx.MockTransport(answer))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A command against a tap that has these pages."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=PAGES[request.url.path])

    monkeypatch.setattr(ledger_commands, "ask_tap", lambda question: question(tap(answer)))

    def command(*words: str) -> str:
        done = CliRunner().invoke(ledger_commands.app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return str(done.stdout)

    return command


def test_balance_says_in_one_sentence_whether_the_books_balance(run: Callable[..., str]) -> None:
    """And what the tap has missed, with the cause."""
    last = run("balance").splitlines()[-1]
    assert last == (
        "1 open: 10 debits, 8 credits and 1 written off; the tap has missed 3 requests and 2 endings (overflow)"
    )
    assert json.loads(run("balance", "--json"))["total"] == TOTAL


def test_open_says_who_has_it(run: Callable[..., str]) -> None:
    """And that there are more."""
    shown = run("open")
    assert "worker-1" in shown
    assert shown.splitlines()[-1] == "7 open; these are 1"


def test_explain_tells_the_story_in_order(run: Callable[..., str]) -> None:
    """A client's text does not steer the terminal."""
    shown = run("explain", "c0ffee")
    assert shown.splitlines()[0] == "c0ffee01: GET /a\\x1b[2J, closed"
    assert [word for word in ("debit", "claim", "credit") if word in shown] == ["debit", "claim", "credit"]
    assert shown.index("debit") < shown.index("claim") < shown.index("first")
    assert "missed 3 requests and 2 endings of edge-1 (overflow)" in shown


def test_gaps_are_a_table(run: Callable[..., str]) -> None:
    """When, whose, how much, why."""
    assert run("gaps").splitlines()[1].split()[-4:] == ["edge-1", "3", "2", "overflow"]


@pytest.mark.parametrize("name", ["short", "../balance", "a" * 65, "a b c d e f"])
def test_an_id_that_is_none_is_misused(run: Callable[..., str], name: str) -> None:
    """It is not sent."""
    with pytest.raises(Misused):
        run("explain", "--", name)


# --- the way to the tap


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(200, content=b"<html>"), "no JSON"),
        (httpx.Response(404, json={"detail": "no request in the ledger begins with c0ffee"}), "begins with c0ffee"),
        (httpx.Response(422, json={"detail": [{"msg": "too large"}, {"msg": "too odd"}]}), "too large; too odd"),
        (httpx.Response(500, content=b"\xff"), "status 500"),
    ],
)
def test_an_answer_that_is_none_fails_with_what_was_said(answer: httpx.Response, said: str) -> None:
    """One line for the operator."""
    with pytest.raises(Failed, match=said):
        tap(lambda request: answer).get("api/ledger/balance")


def test_a_tap_that_is_not_there_is_named() -> None:
    """By its address."""
    with pytest.raises(Failed, match=r"cannot ask the tap at http://127\.0\.0\.1:9/"):
        Tap("http://127.0.0.1:9/").get("api/ledger/balance")


def test_an_answer_without_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole ones and lines alike."""
    monkeypatch.setattr(module, "LONGEST", 1000)
    with pytest.raises(Failed, match="larger than any"):
        tap(lambda request: httpx.Response(200, content=b"x" * 2000)).get("page")
    with pytest.raises(Failed, match="longer than any"):
        list(tap(lambda request: httpx.Response(200, content=b"x" * 2000)).stream("page"))


def test_parameters_that_are_none_are_not_sent() -> None:
    """The tap has its own defaults."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={})

    tap(answer).get("api/ledger/balance", by=None, limit=5)
    assert asked == ["http://dashboard:8081/api/ledger/balance?limit=5"]


def test_a_stream_is_given_line_by_line() -> None:
    """Empty lines, which a tap sends to show that it is there, are left out; the last may have no end."""
    content = iter([b"on", b"e\n\ntw", b"o\nthree"])
    assert list(tap(lambda request: httpx.Response(200, content=content)).stream("page")) == ["one", "two", "three"]
