"""Verdicts: when one begins and ends, what is remembered, and for how long."""

import pytest

from rabbitbal.tap.bots import scorer as module
from rabbitbal.tap.bots.history import SLOTS, Count, History
from rabbitbal.tap.bots.signals import SIGNALS, Finding, ramp, score
from rabbitbal.wire.verdicts import LONGEST_REASON, MOST_REASONS, Suspicion, decode_verdict, encode_verdict
from tests.bots_clients import SIGNED, Clients, T


def test_a_scanner_becomes_a_suspect_with_reasons_that_have_numbers() -> None:
    """And is new once."""
    clients = Clients()
    clients.scan()
    (verdict,) = clients.judge()
    assert (verdict.client, verdict.kind) == ("203.0.113.1", Suspicion.SUSPECT)
    assert "4 requests for what scanners look for and is not here, like /phpmyadmin/" in verdict.reasons
    assert (verdict.since, verdict.until) == (int(T * 1000), int((T + 300) * 1000))
    assert decode_verdict(encode_verdict(verdict)) == verdict
    assert clients.judge() == []


def test_a_verdict_ends_when_nothing_new_speaks_for_it() -> None:
    """After its time, without a word."""
    clients = Clients()
    clients.scan()
    clients.judge()
    clients.now += 299
    assert [verdict.client for verdict in clients.scorer.suspects(clients.now)] == ["203.0.113.1"]
    clients.now += 1
    clients.judge()
    assert clients.scorer.suspects(clients.now) == []


def test_a_verdict_goes_on_while_the_client_does() -> None:
    """Since when it holds stays; until when moves. It is not told as new."""
    clients = Clients()
    clients.scan()
    clients.judge()
    clients.now += 200
    clients.scan()
    assert clients.judge() == []
    (verdict,) = clients.scorer.suspects(clients.now)
    assert (verdict.since, verdict.until) == (int(T * 1000), int((T + 500) * 1000))


def test_a_score_a_little_below_the_threshold_keeps_a_suspect_and_makes_none() -> None:
    """So a verdict does not come and go with each request."""
    clients = Clients(threshold=0.6)
    for path in ("/.env", "/.git/config"):
        clients.ask(path, "203.0.113.2", status=404)
    assert 0.6 * 0.7 < (clients.signals("203.0.113.2")["guesses"]) < 0.6
    assert clients.judge() == []
    clients.scan()
    clients.judge()
    # Of its four guesses two fall out of the window.
    clients.now += 121
    for path in ("/.env", "/.git/config"):
        clients.ask(path, status=404)
    clients.judge()
    (verdict,) = clients.scorer.suspects(clients.now)
    assert verdict.until == int((clients.now + 300) * 1000)


def test_what_is_older_than_the_window_counts_for_nothing() -> None:
    """Slot by slot."""
    clients = Clients(window=60)
    clients.scan()
    clients.now += 61 + 60 / SLOTS
    clients.ask()
    assert "guesses" not in clients.signals()


def test_clients_are_bounded_and_the_one_not_seen_for_longest_goes() -> None:
    """With its verdict."""
    clients = Clients(limit=3)
    clients.scan("203.0.113.1")
    clients.judge()
    for number in (2, 3, 4, 5):
        clients.ask(client=f"203.0.113.{number}")
    assert (len(clients.scorer), clients.scorer.forgotten) == (3, 2)
    assert clients.scorer.suspects(clients.now) == []
    assert clients.scorer.verdict("203.0.113.1", clients.now) is None


def test_only_so_many_are_judged_at_a_time_and_none_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is judged the next time."""
    monkeypatch.setattr(module, "MOST_JUDGED", 2)
    clients = Clients()
    for number in range(3):
        clients.scan(f"203.0.113.{number}")
    assert [len(clients.judge()), len(clients.judge()), len(clients.judge())] == [2, 1, 0]


def test_a_client_that_is_trusted_is_never_a_suspect() -> None:
    """Whatever it does."""
    clients = Clients(trusted="203.0.113.1")
    clients.scan("203.0.113.1")
    clients.scan("203.0.113.2")
    assert [verdict.client for verdict in clients.judge()] == ["203.0.113.2"]


def test_a_crawler_that_says_whose_it_is_is_a_crawler() -> None:
    """However fast it is and whatever it lacks."""
    clients = Clients()
    for number in range(200):
        clients.ask(f"/articles/{number}", fields={"User-Agent": SIGNED})
    assert clients.judge() == []
    verdict = clients.scorer.verdict("203.0.113.1", clients.now)
    assert verdict is not None
    assert verdict.kind is Suspicion.CRAWLER
    assert [(client, agent.name) for client, agent in clients.scorer.crawlers()] == [("203.0.113.1", "ExampleBot")]


def test_a_crawler_that_scans_is_a_suspect_all_the_same() -> None:
    """Whose it says it is."""
    clients = Clients()
    for path in ("/.env", "/wp-login.php", "/.git/config", "/phpmyadmin/"):
        clients.ask(path, status=404, fields={"User-Agent": SIGNED})
    (verdict,) = clients.judge()
    assert verdict.kind is Suspicion.SUSPECT


def test_who_does_nothing_strange_has_nothing_against_it() -> None:
    """It need not be human for that."""
    clients = Clients()
    clients.ask()
    clients.judge()
    verdict = clients.scorer.verdict("203.0.113.1", clients.now)
    assert verdict is not None
    assert (verdict.kind, verdict.score, verdict.reasons) == (Suspicion.HUMAN, 0.0, ())


def test_no_client_makes_a_verdict_that_cannot_be_told() -> None:
    """Its own words are in the reasons: they are cut, and printable."""
    clients = Clients()
    agent = "sqlmap \x80\xff" + "x" * 5000
    for path in ("/.env\xff", "/.git/" + "a" * 3000, '/wp-login.php"\\', "/../../etc/passwd"):
        clients.ask(path + "x" * 2000, status=404, fields={"User-Agent": agent})
    (verdict,) = clients.judge()
    assert decode_verdict(encode_verdict(verdict)) == verdict
    assert len(verdict.reasons) <= MOST_REASONS
    assert all(
        reason.isascii() and reason.isprintable() and len(reason) <= LONGEST_REASON for reason in verdict.reasons
    )


def test_signals_add_up_and_never_reach_beyond_one() -> None:
    """As if they were independent."""
    assert score([]) == 0
    assert score([Finding("a", 0.5, ""), Finding("b", 0.5, "")]) == pytest.approx(0.75)
    assert score([Finding(one.name, one.weight, "") for one in SIGNALS]) < 1
    assert len({one.name for one in SIGNALS}) == len(SIGNALS)
    assert [ramp(value, 1, 3) for value in (0, 1, 2, 3, 9)] == [0, 0, 0.5, 1, 1]


# --- the memory of one client


def test_a_history_counts_within_its_window_only() -> None:
    """And what comes late counts as if it came now."""
    history = History(T)
    for second in range(240):
        history.advance(T + second, 60)
        history.add(Count.REQUESTS)
    assert 50 <= history.facts(60)[Count.REQUESTS] <= 60
    history.advance(T - 1000, 60)
    history.add(Count.REQUESTS)
    assert 51 <= history.facts(60)[Count.REQUESTS] <= 61


def test_after_a_long_rest_a_client_begins_anew() -> None:
    """Its span does not reach back over the rest."""
    history = History(T)
    history.advance(T, 60)
    history.add(Count.REQUESTS)
    history.advance(T + 10_000, 60)
    facts = history.facts(60)
    assert (facts[Count.REQUESTS], facts.span, facts.paths) == (0, 0, 0)


@pytest.mark.parametrize("number", [1, 10, 100, 400])
def test_distinct_paths_are_counted_about_right(number: int) -> None:
    """Each counts once, however often it is asked for."""
    history = History(T)
    history.advance(T, 60)
    for _ in range(3):
        for page in range(number):
            history.visit(b"/articles/%d" % page)
    assert history.facts(60).paths == pytest.approx(number, rel=0.15, abs=1)


def test_a_flood_of_paths_costs_no_memory() -> None:
    """It is told as many, and the sketch stays as it is."""
    history = History(T)
    history.advance(T, 60)
    for page in range(50_000):
        history.visit(b"/%d" % page)
    assert history._fresh.bit_length() <= 512
    assert history.facts(60).paths >= 500
