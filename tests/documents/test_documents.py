"""The documents tell the truth, as far as a program can see."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from rabbitbal.edge.settings import Settings as EdgeSettings
from rabbitbal.operator.settings import Settings as OperatorSettings
from rabbitbal.runtime.settings import variable
from rabbitbal.tap.settings import Settings as TapSettings
from rabbitbal.topology.settings import Settings as TopologySettings
from rabbitbal.wire.reasons import Reason, status_of
from rabbitbal.worker.settings import Settings as WorkerSettings

ROOT = Path(__file__).parents[2]
BEHAVIOR = (ROOT / "docs/behavior.md").read_text()
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("services/*/*.md")])


@pytest.mark.parametrize("reason", Reason)
def test_every_ending_stands_in_the_table_with_its_status(reason: Reason) -> None:
    """docs/behavior.md has one row for each reason."""
    rows = [line for line in BEHAVIOR.splitlines() if line.startswith("|") and f"`{reason.value}`" in line]
    assert len(rows) == 1
    assert str(status_of(reason)) in rows[0]


@pytest.mark.parametrize("settings", [EdgeSettings, WorkerSettings, TapSettings, TopologySettings, OperatorSettings])
def test_every_setting_is_documented(settings: Any) -> None:
    """docs/behavior.md names each variable."""
    missing = [variable(field.name) for field in dataclasses.fields(settings) if variable(field.name) not in BEHAVIOR]
    assert missing == []


def test_no_setting_is_documented_that_does_not_exist() -> None:
    """A variable in docs/behavior.md is a setting of a service or stands in the compose file."""
    known = {
        variable(field.name)
        for settings in (EdgeSettings, WorkerSettings, TapSettings, TopologySettings, OperatorSettings)
        for field in dataclasses.fields(settings)
    }
    for compose in (ROOT / "docker-compose.yml", *(ROOT / "compose").glob("*.yml")):
        known |= set(re.findall(r"RABBITBAL_\w+", compose.read_text()))
    assert set(re.findall(r"`(RABBITBAL_[A-Z_]+)`", BEHAVIOR)) - known == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    """Every relative link names a file or folder of the repository."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    broken = [
        link for link in links if not link.startswith(("http:", "https:")) and not (document.parent / link).exists()
    ]
    assert broken == []
