"""The command and its parts. What a command prints goes to standard output; what it has to say besides, to standard
error."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import structlog
import typer
from yarl import URL

from rabbitbal.operator import bindings
from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.management import Management
from rabbitbal.operator.settings import Settings
from rabbitbal.operator.tables import printable, table
from rabbitbal.operator.telling import speaking
from rabbitbal.operator.workers import Worker, idle, resolve, workers_of
from rabbitbal.routes.document import RoutesError, load
from rabbitbal.routes.policy import Mode
from rabbitbal.routes.question import question
from rabbitbal.routes.schema import json_schema
from rabbitbal.routes.table import BUILT_IN, Route, Table
from rabbitbal.runtime.broker import Server
from rabbitbal.runtime.settings import SettingsError, read
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.fields import is_token

T = TypeVar("T")

app = typer.Typer(
    name="rabbitbal",
    help="Routes, pools and workers of a running Rabbitbal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
routes_app = typer.Typer(no_args_is_help=True, help="The table of routes: a file that the edges read.")
pools_app = typer.Typer(no_args_is_help=True, help="Pools of workers, and the bindings that lead keys to them.")
workers_app = typer.Typer(no_args_is_help=True, help="Workers and what they serve.")
for name, part in (("routes", routes_app), ("pools", pools_app), ("workers", workers_app)):
    app.add_typer(part, name=name, rich_help_panel=None)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
File = Annotated[Path | None, typer.Argument(help="the file; - is standard input [default: RABBITBAL_ROUTES]")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="routing key of a route; * and # stand for words")]
PoolName = Annotated[str, typer.Argument(metavar="POOL")]
WorkerName = Annotated[str, typer.Argument(metavar="WORKER", help="its id, or the beginning of it")]


def main() -> None:
    """Status 0: done; 1: it could not be done; 2: it was not understood, or the file of routes is wrong."""
    logging.basicConfig(level=logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        app()
    except (Misused, SettingsError) as error:
        _end(str(error), 2)
    except Failed as error:
        _end(str(error), 1)


def _end(text: str, status: int) -> None:
    print(f"rabbitbal: {text}", file=sys.stderr)
    sys.exit(status)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _print(value: object) -> None:
    print(json.dumps(value, indent=2))


# --- routes


@routes_app.command("check")
def routes_check(file: File = None, as_json: AsJson = False) -> None:
    """Say all that is wrong with a file of routes, with line and column. Status 2 where something is."""
    try:
        found = _table(file)
    except RoutesError as error:
        if as_json:
            _print({"ok": False, "problems": [_problem(p) for p in error.problems], "warnings": []})
        else:
            _say(str(error))
        sys.exit(2)
    if as_json:
        warnings = [_problem(problem) for problem in found.warnings]
        _print({"ok": True, "routes": len(found.routes), "problems": [], "warnings": warnings})
        return
    for warning in found.warnings:
        _say(f"warning: {warning.told(found.source)}")
    print(f"{found.source}: {len(found.routes)} routes, in order")


@routes_app.command("list")
def routes_list(file: File = None, as_json: AsJson = False) -> None:
    """The routes in their order: what they match, their keys, their policies."""
    found = _checked_table(file)
    if as_json:
        _print({"source": found.source, "digest": found.digest, "routes": [_route(route) for route in found.routes]})
        return
    rows = [[route.name, str(route.match), _to(route), route.policy.mode.value] for route in found.routes]
    print(table(("route", "matches", "keys", "mode"), rows))


@routes_app.command("explain")
def routes_explain(
    url: Annotated[str, typer.Argument(metavar="URL", help="like http://host/path?query, or /path")],
    method: Annotated[str, typer.Option("--method", "-X", help="method of the request")] = "GET",
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="'Name: value'; may be repeated")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="the file [default: RABBITBAL_ROUTES]")] = None,
    as_json: AsJson = False,
) -> None:
    """Which route a request takes and why, its keys, and the pools that these lead to now."""
    found = _checked_table(file)
    target, fields = _request(url, header or [])
    asked = question(method, target, fields)
    steps = found.explain(asked)
    keys = steps[-1].route.keys(asked)
    led = _where(keys)
    if as_json:
        shown = [{"route": s.route.name, "line": s.route.line, "matched": s.matched, "why": s.why} for s in steps]
        _print({"steps": shown, "route": _route(steps[-1].route), "keys": list(keys), "pools": led})
        return
    for step in steps[:-1]:
        print(f"    {step.route.name} (line {step.route.line}): {printable(step.why)}")
    print(f"  > {steps[-1].route.name} (line {steps[-1].route.line}): {printable(steps[-1].why)}")
    for key in keys:
        pools = "(the broker was not asked)" if led is None else ", ".join(led[key]) or "no pool: 503 unroutable"
        print(f"      {key} → {pools}")


@routes_app.command("schema")
def routes_schema() -> None:
    """The JSON Schema of the file, for editors."""
    _print(json_schema())


def _table(file: Path | None) -> Table:
    """Raises RoutesError and Failed."""
    if file is None:
        file = read(Settings).routes
    if file is None:
        return BUILT_IN
    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise Failed(f"{file}: {error.strerror or error}") from error
    return load(text, "standard input" if str(file) == "-" else file.name)


def _checked_table(file: Path | None) -> Table:
    try:
        return _table(file)
    except RoutesError as error:
        raise Misused(f"the file of routes is not valid:\n{error}") from error


def _request(url: str, headers: list[str]) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    fields = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not is_token(name.strip().encode()):
            raise Misused(f"--header {header!r} must read like 'Name: value'")
        fields.append((name.strip().encode(), value.strip().encode()))
    parts = urlsplit(url)
    if parts.scheme not in ("", "http", "https") or (not parts.netloc and not url.startswith("/")):
        raise Misused(f"{url!r} is no URL like http://host/path")
    if parts.netloc and not any(name.lower() == b"host" for name, _ in fields):
        fields.append((b"host", parts.netloc.encode()))
    return (parts.path or "/").encode(), fields


def _where(keys: tuple[str, ...]) -> dict[str, list[str]] | None:
    """The pools of each key, or None where the broker cannot be asked."""
    settings = read(Settings)
    if settings.broker_password_file is None:
        return None
    try:
        pools = _asked(lambda management: management.pools())
    except Failed as error:
        _say(f"rabbitbal: {error}")
        return None
    return {key: bindings.leads(key, pools) for key in keys}


def _problem(problem: Any) -> dict[str, object]:
    return {"line": problem.line, "column": problem.column, "where": problem.where, "text": problem.text}


def _to(route: Route) -> str:
    return ", ".join(route.to) if route.depth is None else f"path:{route.depth}"


def _route(route: Route) -> dict[str, object]:
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
        "hedge": {"budget": hedge.budget, "after": hedge.after or "p95"} if hedge else None,
        "sticky": {"cookie": sticky.cookie, "header": sticky.header, "issue": sticky.issue} if sticky else None,
    }
    if policy.mode is Mode.SHADOW:
        shown["sample"] = policy.sample
    return shown


# --- pools


@pools_app.command("list")
def pools_list(as_json: AsJson = False) -> None:
    """Pools: the keys bound to them, their workers and slots, what waits and what runs, requests per second, and how
    many seconds the next request may expect to wait."""
    pools = _asked(lambda management: management.pools())
    if as_json:
        _print(
            {
                "pools": [
                    {
                        "pool": pool.name,
                        "sticky": pool.sticky,
                        "bindings": pool.bindings,
                        "workers": pool.workers,
                        "slots": pool.slots,
                        "ready": pool.ready,
                        "in_flight": pool.unacknowledged,
                        "rate": pool.rate,
                        "wait": pool.wait,
                    }
                    for pool in pools.values()
                ]
            }
        )
        return
    rows = [
        [
            p.name + (" (sticky)" if p.sticky else ""),
            p.workers,
            p.slots,
            p.ready,
            p.unacknowledged,
            p.rate,
            p.wait,
            p.bindings,
        ]
        for p in pools.values()
    ]
    print(table(("pool", "workers", "slots", "ready", "in flight", "rate/s", "wait s", "keys"), rows))


@pools_app.command("bind")
def pools_bind(
    key: Key,
    pool: PoolName,
    also: Annotated[bool, typer.Option("--also", help="though another pool has it: requests then run in both")] = False,
    as_json: AsJson = False,
) -> None:
    """Lead the requests of a key to a pool."""
    bindings.checked_key(key)
    pools = _asked(lambda management: management.pools())
    bindings.existing(pool, pools)
    if pool in bindings.holders(key, pools):
        _done(bindings.Change(key, (pool,), (pool,), None, time.time()), "nothing to do", None, as_json)
        return
    if not also and (others := bindings.conflicts(key, (pool,), pools)):
        raise Failed(
            f"{key} is matched by {', '.join(others)} already: such requests would run twice. Move it, or say --also"
        )
    _warn_if_empty(pools[pool].workers, pool)
    change = _run(lambda server: bindings.Binder(server).bind(key, pool))
    _done(change, f"{key} leads to {pool}", "pool.bound", as_json)


@pools_app.command("unbind")
def pools_unbind(
    key: Key,
    pool: Annotated[str | None, typer.Argument(metavar="[POOL]", help="from this pool alone")] = None,
    as_json: AsJson = False,
) -> None:
    """Lead the requests of a key nowhere: after a grace they end with 503 unroutable."""
    bindings.checked_key(key)
    pools = _asked(lambda management: management.pools())
    holders = bindings.holders(key, pools)
    if pool is not None:
        bindings.existing(pool, pools)
        holders = tuple(name for name in holders if name == pool)
    if not holders:
        raise Failed(f"{key} is not bound{f' to {pool}' if pool else ''}")
    change = _run(lambda server: bindings.Binder(server).unbind(key, holders))
    _done(change, f"{key} leads no more to {', '.join(holders)}", "pool.unbound", as_json)


@pools_app.command("move")
def pools_move(
    key: Key,
    pool: PoolName,
    force: Annotated[bool, typer.Option("--force", help="though the pool has no workers")] = False,
    as_json: AsJson = False,
) -> None:
    """Lead the requests of a key to another pool, while they flow: none fails and none runs twice."""
    bindings.checked_key(key)
    pools = _asked(lambda management: management.pools())
    target = bindings.existing(pool, pools)
    holders = bindings.holders(key, pools)
    if not holders:
        raise Failed(f"{key} is not bound to any pool: use `pools bind {key} {pool}`")
    if holders == (pool,):
        _done(bindings.Change(key, holders, holders, None, time.time()), "nothing to do", None, as_json)
        return
    if others := bindings.conflicts(key, (*holders, pool), pools):
        raise Failed(f"{key} is matched by {', '.join(others)}, too: such requests would run twice")
    if not target.workers and not force:
        raise Failed(f"{pool} has no workers: requests would wait there until their deadline. Say --force if they come")
    change = _run(lambda server: bindings.Binder(server).move(key, holders, pool))
    text = f"{key} moved from {', '.join(holders)} to {pool}; it led nowhere for {(change.gap or 0) * 1000:.1f} ms"
    _done(change, text, "pool.moved", as_json)


def _warn_if_empty(workers: int, pool: str) -> None:
    if not workers:
        _say(f"rabbitbal: {pool} has no workers: requests wait there until their deadline")


def _done(change: bindings.Change, text: str, event: str | None, as_json: bool) -> None:
    shown = {
        "key": change.key,
        "from": list(change.origin),
        "to": change.to[0] if change.to else None,
        "gap_ms": None if change.gap is None else round(change.gap * 1000, 3),
        "at": change.at,
    }
    if event is not None:
        _tell(event, **shown)
    if as_json:
        _print(shown)
    else:
        print(text)


# --- workers


@workers_app.command("list")
def workers_list(as_json: AsJson = False) -> None:
    """Workers: the pools that each serves with how many slots, and how many requests it runs."""
    workers = _asked(workers_of)
    if as_json:
        _print({"workers": [worker.shown() for worker in workers]})
        return
    rows = [[w.name, w.running, [str(share) for share in w.shares] or "(drained)"] for w in workers]
    print(table(("worker", "running", "pools"), rows))


@app.command("drain")
def drain(
    worker: WorkerName,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="until it runs nothing more")] = True,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="seconds to wait")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Let a worker take no more requests. It finishes what it has, and stays until `resume`, or until it is stopped."""
    name = resolve(worker, _asked(lambda management: management.worker_queues()))
    _order(Kind.DRAIN, name)
    _tell("worker.draining", worker=name)
    if wait and not _asked(lambda management: idle(management, name, timeout, _progress)):
        raise Failed(f"{name} takes no more requests, but still runs some after {timeout:g} s")
    if as_json:
        _print({"worker": name, "drained": wait})
    else:
        print(f"{name} is drained" if wait else f"{name} was told to drain")


@app.command("resume")
def resume(worker: WorkerName, as_json: AsJson = False) -> None:
    """Let a drained worker take requests again."""
    name = resolve(worker, _asked(lambda management: management.worker_queues()))
    _order(Kind.RESUME, name)
    _tell("worker.resuming", worker=name)
    if as_json:
        _print({"worker": name, "resumed": True})
    else:
        print(f"{name} was told to take requests again")


def _progress(worker: Worker) -> None:
    if sys.stderr.isatty():
        print(f"\r{worker.name} runs {worker.running} ", end="", file=sys.stderr)


# --- the way to the broker


def _server(settings: Settings) -> Server:
    return Server(settings.broker_url, settings.broker_password_file)


def _asked(ask: Callable[[Management], T]) -> T:
    settings = read(Settings)
    server = _server(settings)
    try:
        address = URL(server.address())
    except OSError as error:
        raise Failed(f"{settings.broker_password_file}: {error.strerror or error}") from error
    management = Management(settings.management_url, address.user or "", address.password or "")
    try:
        return ask(management)
    finally:
        management.close()


def _run(act: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(act(_server(read(Settings))))


def _order(kind: Kind, worker: str) -> None:
    settings = read(Settings)

    async def tell(server: Server) -> bool:
        async with speaking(server, settings.operator) as voice:
            return await voice.order(kind, worker)

    if not _run(tell):
        raise Failed(f"there is no worker {worker}: it left a moment ago")


def _tell(event: str, **fields: object) -> None:
    """Record what was done. That it cannot be recorded does not undo it."""
    settings = read(Settings)

    async def tell(server: Server) -> bool:
        async with speaking(server, settings.operator) as voice:
            return await voice.notice(event, **fields)

    try:
        told = _run(tell)
    except Failed:
        told = False
    if not told:
        _say("rabbitbal: it is done, but the log could not be told")
