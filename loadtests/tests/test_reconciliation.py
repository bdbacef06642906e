"""Clients' counts beside the books: what agrees, what is explained and by which name, and what cannot be."""

import pytest

from trial import reconciliation
from trial.reconciliation import Entry, Told, reconcile

KILLED = ("dead",)


def entry(
    edge: str = "well-1", standing: str | None = "first", status: int | None = 200, reason: str | None = None
) -> Entry:
    return Entry("k", edge, standing, status, reason)


GONE = entry("dead-1", "written-off", None, "edge-gone")
ANSWERED = entry("dead-1")


@pytest.mark.parametrize(
    ("told", "entries", "kind"),
    [
        ((200, ""), [entry()], reconciliation.ONE),
        ((502, "worker-lost"), [entry(status=502, reason="worker-lost")], reconciliation.ONE),
        ((503, "edge-down"), [GONE], reconciliation.LOST),
        ((503, "edge-down"), [GONE, GONE], reconciliation.LOST),
        ((503, "edge-down"), [ANSWERED], reconciliation.LOST_ANSWERED),
        ((503, "edge-down"), [], reconciliation.NEVER_PUBLISHED),
        ((200, ""), [GONE, entry()], reconciliation.REPEATED),
        ((200, ""), [ANSWERED, entry()], reconciliation.REPEATED_ANSWERED),
        ((503, "overloaded"), [ANSWERED, entry(status=503, reason="overloaded")], reconciliation.REPEATED_ANSWERED),
    ],
)
def test_what_can_be_has_a_name(told: tuple[int, str], entries: list[Entry], kind: str) -> None:
    """One entry for one answer, or the death of an edge."""
    found = reconcile([Told("k", *told)], entries, KILLED)
    assert (found.agrees, dict(found.kinds)) == (True, {kind: 1})


@pytest.mark.parametrize(
    ("told", "entries"),
    [
        ((200, ""), []),
        ((200, ""), [entry(standing=None)]),
        ((200, ""), [entry(status=404)]),
        ((200, ""), [entry(status=502, reason="worker-lost")]),
        ((200, ""), [GONE]),
        ((200, ""), [entry(), entry()]),
        ((200, ""), [entry(), entry("well-2", "written-off", None, "edge-gone")]),
        ((200, ""), [entry(), entry("dead-1", None)]),
        ((200, ""), [GONE, GONE, entry()]),
        ((503, "edge-down"), [entry()]),
        ((503, "edge-down"), [entry("dead-1", None)]),
        ((0, "no answer: TimeoutError"), [entry()]),
        ((0, "no answer: TimeoutError"), []),
    ],
)
def test_what_cannot_be_is_a_disagreement(told: tuple[int, str], entries: list[Entry]) -> None:
    """Missing, open, too many, or of another ending; and the death of an edge that did not die explains nothing."""
    found = reconcile([Told("k", *told)], entries, KILLED)
    assert (len(found.disagreements), dict(found.kinds)) == (1, {})


def test_where_no_edge_was_killed_nothing_is_explained_by_it() -> None:
    """nginx has no reason to answer for an edge."""
    assert not reconcile([Told("k", 503, "edge-down")], [], ()).agrees
    assert not reconcile([Told("k", 200, "")], [GONE, entry()], ()).agrees


def test_an_entry_that_nobody_sent_is_a_disagreement() -> None:
    """The books must not have more than clients sent, either."""
    found = reconcile([], [entry()], KILLED)
    assert (found.agrees, len(found.disagreements)) == (False, 1)
