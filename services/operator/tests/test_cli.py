"""The command without a broker: help, files of routes, mistakes."""

import io
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import structlog

from rabbitbal.operator.cli import main
from rabbitbal.operator.tables import printable, table

GOOD = "version: 1\nroutes:\n  - { name: a, match: { path: /a, headers: { X-T: t } }, to: north }\n  - name: default\n"


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


class Rabbitbal(Protocol):
    def __call__(self, *command: str, stdin: str = "", **environ: str) -> Done: ...


@pytest.fixture
def rabbitbal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rabbitbal:
    """The command as its process would run it, in this one: starting Python takes longer than what it does."""
    monkeypatch.setattr(structlog, "configure", lambda **settings: None)
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: None)

    def run(*command: str, stdin: str = "", **environ: str) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["rabbitbal", *command])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            for name, value in environ.items():
                patch.setenv(name, value)
            try:
                main()
                status = 0
            except SystemExit as error:
                status = int(error.code or 0)
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "routes.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("routes", "check"),
        ("routes", "list"),
        ("routes", "explain"),
        ("routes", "schema"),
        ("pools", "list"),
        ("pools", "bind"),
        ("pools", "unbind"),
        ("pools", "move"),
        ("workers", "list"),
        ("drain",),
        ("resume",),
        ("ledger", "balance"),
        ("ledger", "open"),
        ("ledger", "explain"),
        ("ledger", "gaps"),
        ("record",),
        ("replay",),
    ],
)
def test_every_command_explains_itself(rabbitbal: Rabbitbal, command: tuple[str, ...]) -> None:
    done = rabbitbal(*command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert len(done.stdout.splitlines()) > 5


def test_a_good_file(rabbitbal: Rabbitbal, file: Path) -> None:
    assert rabbitbal("routes", "check", str(file)).stdout == "routes.yaml: 2 routes, in order\n"
    assert rabbitbal("routes", "check", "-", stdin=GOOD).stdout == "standard input: 2 routes, in order\n"
    assert json.loads(rabbitbal("routes", "check", "--json", RABBITBAL_ROUTES=str(file)).stdout)["ok"] is True


def test_a_bad_file(rabbitbal: Rabbitbal, file: Path) -> None:
    file.write_text(GOOD.replace("match", "mach"))
    done = rabbitbal("routes", "check", str(file))
    assert done.returncode == 2
    assert done.stderr.startswith("routes.yaml:3:16: routes[0].mach: 'mach' is not known; did you mean 'match'?\n")
    told = json.loads(rabbitbal("routes", "check", "--json", str(file)).stdout)
    assert (told["ok"], told["problems"][0]["line"], told["problems"][0]["column"]) == (False, 3, 16)
    for command in (("routes", "list", str(file)), ("routes", "explain", "/", "--file", str(file))):
        done = rabbitbal(*command)
        assert done.returncode == 2
        assert "did you mean 'match'?" in done.stderr


def test_a_file_that_is_not_there(rabbitbal: Rabbitbal) -> None:
    done = rabbitbal("routes", "check", "/not/there.yaml")
    assert (done.returncode, done.stderr) == (1, "rabbitbal: /not/there.yaml: No such file or directory\n")


def test_routes_are_listed(rabbitbal: Rabbitbal, file: Path) -> None:
    lines = rabbitbal("routes", "list", str(file)).stdout.splitlines()
    assert lines[0].split() == ["ROUTE", "MATCHES", "KEYS", "MODE"]
    assert lines[1].split("  ")[0] == "a"
    assert "path /a, header X-T: t" in lines[1]


def test_an_explanation_says_which_and_why_not(rabbitbal: Rabbitbal, file: Path) -> None:
    done = rabbitbal("routes", "explain", "http://h/a/b?c", "-H", "X-T: t", "--file", str(file))
    assert "> a (line 3): path /a, header X-T: t" in done.stdout
    assert "north → (the broker was not asked)" in done.stdout
    done = rabbitbal("routes", "explain", "/a", "--file", str(file))
    assert "a (line 3): no header X-T: t" in done.stdout
    assert "> default" in done.stdout


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (("routes", "explain", "ftp://x/"), 2, "is no URL"),
        (("routes", "explain", "/", "-H", "nocolon"), 2, "must read like"),
        (("pools", "bind", "a..b", "north"), 2, "is no key"),
        (("pools", "frob"), 2, "frob"),
        (("drain",), 2, "WORKER"),
        (("pools", "list"), 1, "cannot read"),
    ],
)
def test_mistakes_are_told_in_a_line(rabbitbal: Rabbitbal, command: tuple[str, ...], status: int, words: str) -> None:
    done = rabbitbal(
        *command, RABBITBAL_MANAGEMENT_URL="http://127.0.0.1:9/", RABBITBAL_BROKER_URL="amqp://o@127.0.0.1:9/"
    )
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_setting_is_named(rabbitbal: Rabbitbal) -> None:
    done = rabbitbal("pools", "list", RABBITBAL_MANAGEMENT_URL="nonsense")
    assert done.returncode == 2
    assert "RABBITBAL_MANAGEMENT_URL" in done.stderr


def test_a_table_is_aligned_and_safe() -> None:
    text = table(("name", "n"), [["a", 1], ["b\x1b[2J", 22]])
    assert text.splitlines() == ["NAME" + " " * 7 + "N", "a" + " " * 10 + "1", "b\\x1b[2J" + "  " + "22"]
    assert printable(None) == "-"
    assert printable("\u202egnp.exe") == "\\u202egnp.exe"
    assert table(("a",), []) == "A"


def test_a_table_fits_a_hundred_columns() -> None:
    """Many keys go on in the lines below, and so does a text that is too long; nothing is left out."""
    keys = [f"reports.branch-{number}.#" for number in range(30)]
    text = table(("pool", "ready", "keys"), [["p" * 64, 12, keys], ["q", 3, "w" * 150]])
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert all(key in text for key in keys)
    assert text.count("w") == 150
    assert text.count("p") - text.count("reports") == 64
    assert lines[1].split()[1] == "12"
