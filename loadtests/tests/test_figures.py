"""Latencies, ratios, arrivals, tables of routes and parts of an answer: what is computed, without a deployment."""

import statistics
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from copies import EAST, parts_of
from routing import MATCHED, table
from trial.figures import Ratio, beside, latencies, ratio, ratio_table
from trial.figures import table as rows
from trial.load import Answer, arrivals


def test_latencies_of_all_answers_the_failed_ones_too() -> None:
    answers = [Answer(str(n), 200, seconds=n / 1000) for n in range(1, 1000)]
    answers.append(Answer("late", 504, "queue-timeout", seconds=3.0))
    told = latencies({"one": answers})
    assert told["one"] == {
        "requests": 1000,
        "failed": {"504 queue-timeout": 1},
        "p50": 501.0,
        "p95": 951.0,
        "p99": 991.0,
        "p99.9": 3000.0,
        "max": 3000.0,
    }
    assert "| one | 1000 | 504 queue-timeout: 1 | 501.0 | 951.0 | 991.0 | 3000.0 | 3000.0 |" in rows("x", told)


def test_a_variant_without_answers_has_a_row() -> None:
    assert "| none | 0 | 0 |" in rows("x", latencies({"none": []}))


def test_a_ratio_compares_round_by_round() -> None:
    """So that a round that was slow for both says nothing."""
    assert ratio([2.0, 20.0, 3.0], [1.0, 10.0, 2.0]) == Ratio(2.0, 1.5, 2.0)
    with pytest.raises(ValueError, match="nothing"):
        ratio([], [])
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0], [1.0, 2.0])


def test_variants_are_compared_with_the_base_of_their_round() -> None:
    """Each share for itself; the base has no row."""
    cells = {
        "base": [[Answer("", 200, seconds=n * scale) for n in (1, 2, 3)] for scale in (1.0, 10.0)],
        "half": [[Answer("", 200, seconds=n * scale) for n in (1, 2, 3)] for scale in (1.5, 30.0)],
    }
    told = beside(cells, "base", ("p50", "max"))
    assert told == {"half": {"p50": Ratio(2.25, 1.5, 3.0), "max": Ratio(2.25, 1.5, 3.0)}}
    assert ratio_table("x", told).splitlines()[0::2] == [
        "| x | p50 | max |",
        "| half | 2.25 (1.50 to 3.00) | 2.25 (1.50 to 3.00) |",
    ]
    assert ratio_table("x", {}) == "| x |  |\n| --- |"
    with pytest.raises(ValueError, match="zip"):
        beside({"base": [], "half": cells["half"]}, "base", ("p50",))


def test_arrivals_are_those_of_their_seed() -> None:
    """Poisson, at the rate that was asked for."""
    due = arrivals(100, 60, seed=1)
    assert due == arrivals(100, 60, seed=1)
    assert due != arrivals(100, 60, seed=2)
    assert due == sorted(due)
    assert due[0] > 0
    assert due[-1] < 60
    assert len(due) == pytest.approx(6000, rel=0.05)
    gaps = [after - before for before, after in pairwise(due)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.1)


@pytest.mark.parametrize("routes", [1, 2, 1000])
def test_a_table_has_as_many_routes_as_it_should(routes: int) -> None:
    """The request's is the last but one; before it are prefixes of their own."""
    found = yaml.safe_load(table(routes))
    assert len(found["routes"]) == routes
    assert found["routes"][-1] == {"name": "default"}
    paths = [route["match"]["path"] for route in found["routes"][:-1]]
    assert len(set(paths)) == len(paths)
    assert [path for path in paths if path == MATCHED] == [MATCHED] * (routes > 1)
    assert routes == 1 or paths[-1] == MATCHED


def test_the_table_of_the_copies_is_one() -> None:
    text = (Path(__file__).parents[1] / "copies.py").read_text()
    found = yaml.safe_load(text.split('TABLE = """\\\n')[1].split('"""')[0].replace("BUDGET", "0.03"))
    assert [route["name"] for route in found["routes"]][-1] == "default"


MULTIPART = b"""\
--b\r
Content-Type: application/http; msgtype=response\r
Rabbitbal-Key: north\r
Rabbitbal-Pool: north\r
\r
HTTP/1.1 200 OK\r
Content-Length: 2\r
\r
ok\r
--b\r
Content-Type: application/http; msgtype=response\r
Rabbitbal-Key: east\r
Rabbitbal-Error: queue-timeout\r
\r
HTTP/1.1 504 Gateway Timeout\r
\r
\r
--b--\r
"""


def test_parts_are_read_with_their_own_statuses() -> None:
    assert parts_of('multipart/mixed; boundary="b"', MULTIPART) == [("north", 200, None), EAST]


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("text/plain", MULTIPART, []),
        ('multipart/mixed; boundary="other"', MULTIPART, []),
        (
            'multipart/mixed; boundary="b"',
            MULTIPART.replace(b"HTTP/1.1 200", b"nonsense 200"),
            [("north", 0, None), EAST],
        ),
        ("", b"", []),
    ],
)
def test_what_is_no_multipart_answer_has_no_parts(kind: str, body: bytes, expected: list[object]) -> None:
    """And so the measurement fails."""
    assert parts_of(kind, body) == expected
