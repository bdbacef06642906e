"""A file that changes while it is watched."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rabbitbal.routes import watch as module
from rabbitbal.routes.document import RoutesError
from rabbitbal.routes.table import BUILT_IN
from rabbitbal.routes.watch import RoutesFile

GOOD = "version: 1\nroutes: [{name: default}]\n"
OTHER = "version: 1\nroutes: [{name: other, match: {path: /x}}, {name: default}]\n"


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.002)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "PERIOD", 0.002)
    path = tmp_path / "routes.yaml"
    path.write_text(GOOD)
    return path


@asynccontextmanager
async def watched(path: Path | None) -> AsyncIterator[tuple[RoutesFile, list[dict[str, object]]]]:
    told: list[dict[str, object]] = []
    file = RoutesFile(path, told.append)
    file.start()
    task = asyncio.ensure_future(file.run())
    try:
        yield file, told
    finally:
        task.cancel()


async def test_a_new_table_is_taken(path: Path) -> None:
    async with watched(path) as (file, told):
        assert [news["event"] for news in told] == ["routes.loaded"]
        path.write_text(OTHER)
        await until(lambda: len(file.table.routes) == 2)
        assert [news["event"] for news in told] == ["routes.loaded", "routes.loaded"]
        assert told[-1]["digest"] == file.table.digest == file.state()["digest"]


async def test_a_broken_one_is_told_once_and_changes_nothing(path: Path) -> None:
    """Put right, it is taken, also when it is what was there before."""
    async with watched(path) as (file, told):
        before = file.table
        path.write_text("version: 1\nroutes: [{nam: default}]\n")
        await until(lambda: len(told) == 2)
        await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.02)
        assert len(told) == 2
        assert told[1]["event"] == "routes.refused"
        assert "routes.yaml:2:" in str(told[1]["error"])
        assert file.table is before
        assert file.state()["refused"] == told[1]["error"]
        path.write_text(GOOD)
        await until(lambda: file.state()["refused"] is None)
        assert told[-1]["event"] == "routes.loaded"


async def test_a_file_that_is_gone_changes_nothing(path: Path) -> None:
    async with watched(path) as (file, told):
        path.unlink()
        await until(lambda: len(told) == 2)
        assert "cannot be read" in str(told[1]["error"])
        path.write_text(OTHER)
        await until(lambda: len(file.table.routes) == 2)


def test_the_first_table_must_be_good(path: Path) -> None:
    path.write_text("version: 1\n")
    with pytest.raises(RoutesError, match="'routes' is missing"):
        RoutesFile(path, lambda news: None).start()
    with pytest.raises(RoutesError, match="cannot be read"):
        RoutesFile(path / "not" / "there", lambda news: None).start()


async def test_without_a_file_there_is_the_built_in_table() -> None:
    async with watched(None) as (file, told):
        assert file.table is BUILT_IN
        assert told == []
