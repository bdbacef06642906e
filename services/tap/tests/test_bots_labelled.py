"""The scorer against real clients, as they were recorded: no worse than docs/bots.md says.

data/bots/README.md tells how the log was made.
"""

import json
import re
from functools import lru_cache
from pathlib import Path

from bots.labelled import DATA, LASTING, THRESHOLD, WINDOW, Outcome, measure, replay
from rabbitbal.tap.settings import Settings

DOCUMENT = (Path(__file__).parents[3] / "docs" / "bots.md").read_text()


@lru_cache(1)
def outcomes() -> tuple[Outcome, ...]:
    return tuple(replay())


def test_the_figures_are_those_of_the_settings_that_are_shipped() -> None:
    """Window, threshold, and how long a verdict lasts."""
    shipped = Settings()
    assert (shipped.bots_window, shipped.bots_threshold, shipped.bots_verdict) == (WINDOW, THRESHOLD, LASTING)


def test_precision_and_recall_are_no_worse_than_the_document_says() -> None:
    """Of each half: the one that the threshold was chosen by, and the one that was held out."""
    for held, name in ((False, "chosen by"), (True, "held out")):
        row = re.search(rf"\| {name} \| (\d+) of (\d+) \| (\d+) of (\d+) \|", DOCUMENT)
        assert row is not None
        found = measure(one for one in outcomes() if one.held is held)
        assert [found.right, found.right + found.wrong] == [int(row[1]), int(row[2])]
        assert [found.right, found.right + found.missed] == [int(row[3]), int(row[4])]


def test_no_person_and_no_ordinary_program_is_suspected() -> None:
    """In either half."""
    assert [one.tool for one in outcomes() if one.suspected and one.label in ("human", "api")] == []


def test_crawlers_that_say_whose_they_are_are_told_apart() -> None:
    """From bots, and from people."""
    assert {one.kind.value for one in outcomes() if one.label == "crawler"} == {"crawler"}


def test_the_document_names_every_bot_that_was_missed() -> None:
    """It does not hide what it cannot tell."""
    for one in outcomes():
        if one.label == "bot" and not one.suspected:
            assert f"*{one.tool}*" in DOCUMENT, one.tool


def test_every_line_of_the_log_is_of_a_client_with_a_label() -> None:
    """And the log is small enough to be kept."""
    clients = json.loads((DATA / "clients.json").read_text())
    log = (DATA / "log.ndjson").read_text()
    assert {json.loads(line)["c"] for line in log.splitlines()} == set(clients)
    assert {about["label"] for about in clients.values()} == {"human", "api", "crawler", "bot"}
    assert len(log) < 1_000_000
