"""The edge's settings: every bad value names its variable."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rabbitbal.edge.serve import serve
from rabbitbal.edge.settings import Settings
from rabbitbal.runtime.lifecycle import Stop
from rabbitbal.runtime.settings import SettingsError, describe, read


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RABBITBAL_BROKER_URL", "rabbitmq:5672"),
        ("RABBITBAL_PORT", "65536"),
        ("RABBITBAL_PORT", "-1"),
        ("RABBITBAL_TIMEOUT", "0"),
        ("RABBITBAL_TIMEOUT", "soon"),
        ("RABBITBAL_TIMEOUT", "nan"),
        ("RABBITBAL_BODY_LIMIT", "-1"),
        ("RABBITBAL_HEADER_LIMIT", "1023"),
        ("RABBITBAL_TARGET_LIMIT", "63"),
        ("RABBITBAL_ROUTE_GRACE", "61"),
        ("RABBITBAL_BROKER_GRACE", "601"),
        ("RABBITBAL_MAX_PENDING", "0"),
        ("RABBITBAL_BUFFER_LIMIT", "1"),
        ("RABBITBAL_EXPOSE_WORKER", "perhaps"),
        ("RABBITBAL_EDGE_ID", "*"),
        ("RABBITBAL_EDGE_ID", "a.b"),
        ("RABBITBAL_LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, text: str) -> None:
    """One line for the operator, before anything is started."""
    with pytest.raises(SettingsError, match=variable):
        read(Settings, {variable: text})


async def test_bad_networks_name_their_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are parsed when the edge starts; nothing listens yet."""
    monkeypatch.setattr("rabbitbal.runtime.logs.configure", lambda *_: None)
    with pytest.raises(SettingsError, match="RABBITBAL_TRUSTED_PROXIES"):
        await asyncio.wait_for(serve(Settings(trusted_proxies="10.0.0.0/8, nginx"), Stop()), 5)


async def started(routes: Path) -> None:
    await asyncio.wait_for(serve(Settings(routes=routes, port=0), Stop()), 5)


async def test_a_bad_table_stops_the_edge_with_all_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, line and column, a line for each; an edge without a table would lead every request astray."""
    monkeypatch.setattr("rabbitbal.runtime.logs.configure", lambda *_: None)
    path = tmp_path / "routes.yaml"
    path.write_text("version: 1\nroutes:\n  - { name: a, timeout: soon }\n  - { name: default, mood: first }\n")
    with pytest.raises(SettingsError) as error:
        await started(path)
    assert re.search(rf"RABBITBAL_ROUTES: {path}:3:25: .*timeout", str(error.value))
    assert re.search(rf"\n{path}:4:22: .*mood", str(error.value))


async def test_a_table_that_is_not_there_stops_the_edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked for, so the built-in one will not do."""
    monkeypatch.setattr("rabbitbal.runtime.logs.configure", lambda *_: None)
    with pytest.raises(SettingsError, match=rf"RABBITBAL_ROUTES: {tmp_path}/none.yaml:.*No such file"):
        await started(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match=rf"RABBITBAL_ROUTES: {tmp_path}:.*[Dd]irectory"):
        await started(tmp_path)


def test_a_bad_table_ends_the_program_with_status_2(tmp_path: Path) -> None:
    """What is wrong is on its standard error, and no traceback."""
    path = tmp_path / "routes.yaml"
    path.write_text("version: 2\n")
    ended = subprocess.run(
        [sys.executable, "-m", "rabbitbal.edge"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RABBITBAL_ROUTES": str(path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"rabbitbal edge: RABBITBAL_ROUTES: {path}:1:1: ")
    assert f"\n{path}:1:10: version" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_setting_has_a_help_text() -> None:
    """`--help` is where an operator looks."""
    lines = describe(Settings).splitlines()[2:]
    assert [line for line in lines if not line.split("(default")[0].split(maxsplit=1)[1:]] == []
