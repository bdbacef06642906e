"""`rabbitbal routes`: the file that the edges read, before they do."""

import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from rabbitbal.operator import bindings
from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.pools import pools_of
from rabbitbal.operator.reach import AsJson, File, ask, say, show
from rabbitbal.operator.settings import Settings
from rabbitbal.operator.tables import printable, table
from rabbitbal.routes.document import RoutesError, load
from rabbitbal.routes.policy import Mode
from rabbitbal.routes.question import Question, question
from rabbitbal.routes.schema import json_schema
from rabbitbal.routes.table import BUILT_IN, Problem, Route, Table
from rabbitbal.routes.tree import MOST_BYTES
from rabbitbal.runtime.settings import read
from rabbitbal.wire.fields import is_token

app = typer.Typer(no_args_is_help=True, help="The table of routes: a file that the edges read.")


@app.command()
def check(file: File = None, as_json: AsJson = False) -> None:
    """Say all that is wrong with a file of routes, with line and column. Status 2 where something is. No broker is
    needed."""
    try:
        found = _table(file)
    except RoutesError as error:
        if as_json:
            show({"ok": False, "problems": [_problem(p) for p in error.problems], "warnings": []})
        else:
            for line in str(error).splitlines():
                typer.echo(printable(line), err=True)
        sys.exit(2)
    if as_json:
        warnings = [_problem(problem) for problem in found.warnings]
        show({"ok": True, "routes": len(found.routes), "problems": [], "warnings": warnings})
        return
    for warning in found.warnings:
        typer.echo(f"warning: {printable(warning.told(found.source))}", err=True)
    number = len(found.routes)
    typer.echo(f"{printable(found.source)}: {number} route{'s' if number > 1 else ''}, in order")


@app.command("list")
def list_(file: File = None, as_json: AsJson = False) -> None:
    """The routes in their order: what they match, their keys, how many workers get a request."""
    found = _checked(file)
    if as_json:
        show({"source": found.source, "digest": found.digest, "routes": [_shown(route) for route in found.routes]})
        return
    rows = [[route.name, str(route.match), _to(route), route.policy.mode.value] for route in found.routes]
    typer.echo(table(("route", "matches", "keys", "mode"), rows))


@app.command()
def explain(
    url: Annotated[str, typer.Argument(metavar="URL", help="like http://host/path?query, or /path")],
    method: Annotated[str, typer.Option("--method", "-X", help="method of the request")] = "GET",
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="'Name: value'; may be repeated")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="the file [default: RABBITBAL_ROUTES]")] = None,
    as_json: AsJson = False,
) -> None:
    """Which route a request takes, why not those before it, its keys, and the pools that these lead to now."""
    asked = _asked(method, url, header or [])
    steps = _checked(file).explain(asked)
    taken = steps[-1].route
    keys = taken.keys(asked)
    led = _led(keys)
    if as_json:
        shown = [{"route": s.route.name, "line": s.route.line, "matched": s.matched, "why": s.why} for s in steps]
        show({"steps": shown, "route": _shown(taken), "keys": list(keys), "pools": led})
        return
    for step in steps:
        mark = "  > " if step.matched else "    "
        typer.echo(f"{mark}{printable(step.route.name)} (line {step.route.line}): {printable(step.why)}")
    for key in keys:
        pools = "(the broker was not asked)" if led is None else ", ".join(led[key]) or "no pool: 503 unroutable"
        typer.echo(f"      {key} → {printable(pools)}")


@app.command()
def schema() -> None:
    """The JSON Schema of the file, for editors."""
    show(json_schema())


def _table(file: Path | None) -> Table:
    """Raises RoutesError and Failed."""
    file = file or read(Settings).routes
    if file is None:
        return BUILT_IN
    piped = str(file) == "-"
    try:
        # One byte more than is allowed, so that the reader sees it.
        if piped:
            text = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with file.open("rb") as opened:
                text = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise Failed(f"{file}: {error.strerror or error}") from error
    return load(text, "standard input" if piped else file.name)


def _checked(file: Path | None) -> Table:
    try:
        return _table(file)
    except RoutesError as error:
        raise Misused(f"the file of routes is not valid:\n{error}") from error


def _asked(method: str, url: str, headers: list[str]) -> Question:
    """Raises Misused."""
    fields = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not is_token(name.strip().encode()):
            raise Misused(f"--header {header!r} must read like 'Name: value'")
        fields.append((name.strip().encode(), value.strip().encode()))
    if not is_token(method.encode()):
        raise Misused(f"--method {method!r} is no method")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Misused(f"{url!r} is no URL: {error}") from error
    if parts.scheme not in ("", "http", "https") or (not parts.netloc and not url.startswith("/")):
        raise Misused(f"{url!r} is no URL like http://host/path")
    if parts.netloc and not any(name.lower() == b"host" for name, _ in fields):
        fields.append((b"host", parts.netloc.rpartition("@")[2].encode()))
    # What a URL has in other scripts a client sends percent-encoded, at the least as bytes.
    return question(method, (parts.path or "/").encode(), fields)


def _led(keys: tuple[str, ...]) -> dict[str, list[str]] | None:
    """The pools of each key, or None where the broker cannot be asked."""
    if read(Settings).broker_password_file is None:
        return None
    try:
        pools = ask(pools_of)
    except Failed as error:
        say(str(error))
        return None
    return {key: bindings.leads(key, pools) for key in keys}


def _problem(problem: Problem) -> dict[str, object]:
    return {"line": problem.line, "column": problem.column, "where": problem.where, "text": problem.text}


def _to(route: Route) -> tuple[str, ...]:
    return route.to if route.depth is None else (f"path:{route.depth}",)


def _shown(route: Route) -> dict[str, object]:
    policy = route.policy
    hedge, sticky = policy.hedge, policy.sticky
    shown: dict[str, object] = {
        "name": route.name,
        "line": route.line,
        "match": str(route.match),
        "to": list(route.to) if route.depth is None else {"path": route.depth},
        "mode": policy.mode.value,
        "timeout": policy.timeout,
        "body_limit": policy.body_limit,
        "redeliver": policy.redeliver.value,
        "delivery": policy.delivery.value,
        "bots": policy.bots.value,
        "hedge": {"budget": hedge.budget, "after": hedge.after or "p95"} if hedge else None,
        "sticky": {"cookie": sticky.cookie, "header": sticky.header, "issue": sticky.issue} if sticky else None,
    }
    if policy.mode is Mode.SHADOW:
        shown["sample"] = policy.sample
    if policy.mode is Mode.ALL:
        shown["part_limit"] = policy.part_limit
    return shown
