"""Figures of a load with moves, and the picture of them, from given records."""

import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from trial.picture import draw
from trial.shifts import Books, Move, Record, app_seconds, books, effects, report, summary, windows

BEGIN = 1_000_000.0


def record(at: float, pool: str = "small", took: float = 0.1, uri: str = "reports", **more: Any) -> Record:
    """Due ``at`` seconds after the beginning, with half of its time in the application."""
    known: dict[str, Any] = {"status": 200, "reason": "", "key": f"{uri}-{at}"} | more
    due = BEGIN + at
    return Record(uri=uri, due=due, ended=due + took, pool=pool, app=took / 2, **known)


def move(at: float, to: str = "large", origin: str = "small", key: str = "reports", gap: float = 0.01) -> Move:
    return Move(key, origin, to, BEGIN + at + gap, gap, BEGIN + at - 1)


def test_windows_count_answers_by_their_end_and_lateness_by_when_it_was_due() -> None:
    records = [record(0.1), record(0.5), record(0.95, took=0.2), record(1.5, took=0.4)]
    first, second = windows(records, BEGIN, 2, 1)
    assert (first.at, first.per_second, first.failed) == (0.5, 2.0, 0)
    assert first.p95 == pytest.approx(0.2)
    assert (second.at, second.per_second) == (1.5, 2.0)
    assert second.p95 == pytest.approx(0.4)


def test_a_window_without_answers_has_no_lateness() -> None:
    """Failures are counted, and are no throughput."""
    first, second = windows([record(0.5, status=503, reason="unroutable")], BEGIN, 2, 1)
    assert (first.per_second, first.p95, first.failed) == (0, None, 1)
    assert (second.per_second, second.p95, second.failed) == (0, None, 0)


def test_the_effect_is_the_first_start_in_the_new_pool() -> None:
    """From the unbinding on; what waited in the old pool is run there afterwards."""
    records = [record(0.9), record(1.02, "small", 0.2), record(1.05, "large"), record(1.2, "large"), record(1.3, "x")]
    (found,) = effects([move(1.0)], records)
    assert found.first == pytest.approx(0.10)
    assert found.last == pytest.approx(0.12)


def test_another_uri_in_that_pool_is_no_effect() -> None:
    (found,) = effects([move(1.0)], [record(1.1, "large", uri="catalog")])
    assert (found.first, found.last) == (None, None)


def test_the_effect_of_a_move_ends_with_the_next_one_of_the_key() -> None:
    """Back and forth: the second one's old pool is the first one's new one."""
    moves = [move(1.0), move(2.0, "small", "large"), move(2.5, key="catalog")]
    records = [record(1.1, "large"), record(1.9, "large", 0.3), record(2.2, "small")]
    there, back, other = effects(moves, records)
    assert there.first == pytest.approx(0.15)
    assert there.last is None
    assert [back.first, back.last] == pytest.approx([0.25, 0.05])
    assert (other.first, other.last) == (None, None)


def test_books_balance_when_each_request_ran_once() -> None:
    records = [record(0), record(1)]
    kept = books(records, Counter({r.key: 1 for r in records}))
    assert kept == Books(2, {}, 0, 0)
    assert kept.balanced


@pytest.mark.parametrize(
    ("records", "runs", "expected"),
    [
        ([record(0)], {"reports-0": 2}, Books(1, {}, 1, 0)),
        ([record(0)], {}, Books(1, {}, 0, 1)),
        ([record(0, status=503, reason="unroutable")], {}, Books(1, {"503 unroutable": 1}, 0, 0)),
        ([record(0, status=0, reason="no answer: X")], {"reports-0": 1}, Books(1, {"0 no answer: X": 1}, 0, 0)),
        ([], {}, Books(0, {}, 0, 0)),
        # One that is in no record of ours: its client never saw an end.
        ([record(0)], {"reports-0": 1, "reports-lost": 2}, Books(1, {}, 1, 0)),
    ],
)
def test_books_that_do_not_balance(records: list[Record], runs: dict[str, int], expected: Books) -> None:
    """A failure, a second run, an answer that nobody ran, and a run of nothing at all."""
    kept = books(records, Counter(runs))
    assert kept == expected
    assert not kept.balanced


@pytest.fixture
def told() -> dict[str, Any]:
    records = [record(n / 10, "small" if n < 100 else "large", 0.3 if n < 100 else 0.1) for n in range(200)]
    records += [record(n / 10, "large", 0.1, "catalog") for n in range(200)]
    records.append(record(15, status=503, reason="unroutable"))
    kept = books(records, Counter({r.key: 1 for r in records}))
    return summary(records, [move(10.0), move(11.0, "small", "large", "catalog")], kept, BEGIN, 20, 2)


def test_the_summary_is_what_is_reported(told: dict[str, Any]) -> None:
    assert list(told["series"]) == ["catalog", "reports"]
    assert len(told["series"]["reports"]) == 10
    assert told["books"] == asdict(Books(401, {"503 unroutable": 1}, 0, 0))
    first = told["moves"][0]
    assert (first["key"], first["to"]) == ("reports", "large")
    assert first["unbound"] == pytest.approx(10)
    assert first["first_ms"] == pytest.approx(50)
    text = report(told)
    assert "requests 401, failed 503 unroutable: 1, run twice 0" in text
    assert "| 10.0 | reports | small | large | 10.0 | 50.0 |" in text
    assert "| 11.0 | catalog | large | small | 10.0 | - |" in text


def test_the_picture_shows_both_uris_and_each_move(told: dict[str, Any], tmp_path: Path) -> None:
    """As SVG and PNG, from the figures alone."""
    svg, png = tmp_path / "shift.svg", tmp_path / "shift.png"
    draw(told, "title", svg, png)
    assert png.read_bytes().startswith(b"\x89PNG")
    drawn = svg.read_text()
    assert ET.fromstring(drawn).tag.endswith("svg")
    for text in ("/catalog", "/reports", "/reports → large", "/catalog → small", "401 requests, 1 failed, 0 run twice"):
        assert f"<!-- {text}" in drawn, text
    for colour in ("#0072b2", "#d55e00", "#cc0000"):
        assert colour in drawn, colour
    # Two moves in two panels.
    assert drawn.count("stroke: #555555") == 4


def test_a_picture_of_a_load_without_answers_is_drawn_all_the_same(tmp_path: Path) -> None:
    """What went wrong is to be seen, too."""
    records = [record(1, status=0, reason="no answer: X")]
    told = summary(records, [], books(records, Counter()), BEGIN, 4, 2)
    draw(told, "title", tmp_path / "x.svg")
    assert "1 requests, 1 failed" in (tmp_path / "x.svg").read_text()


@pytest.mark.parametrize(
    ("field", "seconds"),
    [("queue;dur=1.5, app;dur=20.5", 0.0205), ("app;dur=20", 0.02), ("queue;dur=1", 0), ("app;dur=x", 0), ("", 0)],
)
def test_the_time_in_the_application_is_the_server_timing(field: str, seconds: float) -> None:
    """0 where it is not told: then a request counts as started when it had ended, which is later."""
    assert app_seconds(field) == pytest.approx(seconds)
