"""`rabbitbal pools`: what each pool does, and leading keys to others."""

import time
from typing import Annotated

import typer

from rabbitbal.operator import bindings
from rabbitbal.operator.binder import Binder, Change, HalfDone
from rabbitbal.operator.errors import Failed
from rabbitbal.operator.interrupts import uninterrupted
from rabbitbal.operator.pools import Pool, existing, pools_of
from rabbitbal.operator.reach import AsJson, act, ask, record, say, show
from rabbitbal.operator.tables import printable, table

app = typer.Typer(no_args_is_help=True, help="Pools of workers, and the bindings that lead keys to them.")

Key = Annotated[str, typer.Argument(metavar="KEY", help="key of a route; * stands for a word, # for any number")]
PoolName = Annotated[str, typer.Argument(metavar="POOL", help="name of a pool")]

NOTHING = "nothing to do"


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Pools: workers and slots, what waits and what runs, requests per second, and the seconds that the next request
    may expect to wait. The broker's figures are up to ten seconds old; keys and workers are of now."""
    pools = ask(pools_of).values()
    if as_json:
        show({"pools": [pool.shown() for pool in pools]})
        return
    rows = [[_name(p), p.workers, p.slots, p.ready, p.in_flight, p.rate, p.wait, p.bindings] for p in pools]
    typer.echo(table(("pool", "workers", "slots", "ready", "in flight", "rate/s", "wait s", "keys"), rows))


def _name(pool: Pool) -> str:
    return pool.name + (" (sticky)" if pool.sticky else "") + ("" if pool.queue else " (no queue)")


@app.command()
def bind(
    key: Key,
    pool: PoolName,
    also: Annotated[bool, typer.Option("--also", help="though another pool has it: requests then run in both")] = False,
    as_json: AsJson = False,
) -> None:
    """Lead the requests of a key to a pool."""
    bindings.checked_key(key)
    pools = ask(pools_of)
    if pool in bindings.holders(key, pools) and existing(pool, pools):
        _done(Change(key, (pool,), (pool,), at=time.time()), NOTHING, None, as_json=as_json)
        return
    bindings.check_bind(key, pool, pools, also=also)
    if not pools[pool].workers:
        say(f"{pool} has no workers: requests wait there until their deadline")
    wanted = (*bindings.holders(key, pools), pool)
    with uninterrupted(_finishing):
        change = act(lambda server: Binder(server).bind(key, pool))
        _done(change, f"{key} leads to {pool}", "pool.bound", wanted, as_json=as_json)


@app.command()
def unbind(
    key: Key,
    pool: Annotated[str | None, typer.Argument(metavar="[POOL]", help="from this pool alone")] = None,
    as_json: AsJson = False,
) -> None:
    """Lead the requests of a key nowhere: after a grace they end with 503 unroutable."""
    bindings.checked_key(key)
    pools = ask(pools_of)
    origin = bindings.check_unbind(key, pool, pools)
    left = [name for name in bindings.holders(key, pools) if name not in origin]
    with uninterrupted(_finishing):
        change = act(lambda server: Binder(server).unbind(key, origin))
        _done(change, f"{key} leads no more to {', '.join(origin)}", "pool.unbound", left, as_json=as_json)


@app.command()
def move(
    key: Key,
    pool: PoolName,
    force: Annotated[bool, typer.Option("--force", help="though the pool has no workers")] = False,
    as_json: AsJson = False,
) -> None:
    """Lead the requests of a key to another pool while they flow: none fails and none runs twice.

    What waits in the old pool's queue is run there.
    """
    bindings.checked_key(key)
    pools = ask(pools_of)
    origin = bindings.check_move(key, pool, pools, force=force)
    if origin == (pool,):
        _done(Change(key, origin, origin, at=time.time()), NOTHING, None, as_json=as_json)
        return
    if not pools[pool].workers:
        say(f"{pool} has no workers: requests wait there until their deadline")
    with uninterrupted(_finishing):
        try:
            change = act(lambda server: Binder(server, _finishing).move(key, origin, pool))
        except HalfDone as error:
            raise Failed(f"{key} was not moved: {error}\n{_state(key, origin, error.restored)}") from error
        gap = "" if change.gap is None else f"; it led nowhere for {change.gap * 1000:.1f} ms"
        text = f"{key} moved from {', '.join(name for name in origin if name != pool)} to {pool}{gap}"
        _done(change, text, "pool.moved", (pool,), as_json=as_json)


def _finishing() -> None:
    """A change that was begun is finished, and told to the log, whoever presses Ctrl-C."""
    say("this is finished first")


def _state(key: str, origin: tuple[str, ...], restored: bool) -> str:
    """What there is after a move that failed, as the broker has it now."""
    again = f"to bind it again: `pools bind {key} {origin[0]}`"
    try:
        now = bindings.holders(key, ask(pools_of))
    except Failed:
        if restored:
            return f"{key} leads to {', '.join(origin)} again"
        return f"{key} may lead nowhere now; look with `pools list`, {again}"
    said = f"{key} {bindings.state(now)}"
    return said if now else f"{said}; {again}"


def _done(
    change: Change, text: str, event: str | None, wanted: tuple[str, ...] | list[str] = (), *, as_json: bool
) -> None:
    """Record a change, look whether it is so, and say so. Without an event nothing was changed."""
    shown = {
        "key": change.key,
        "from": list(change.origin),
        "to": change.to[0] if change.to else None,
        "gap_ms": None if change.gap is None else round(change.gap * 1000, 3),
        "at": change.at,
    }
    if event is not None:
        record(event, **shown)
        _look(change.key, wanted)
    if as_json:
        show(shown)
    else:
        typer.echo(printable(text))


def _look(key: str, wanted: tuple[str, ...] | list[str]) -> None:
    """Raises Failed where a change is not as it was confirmed."""
    try:
        pools = ask(pools_of)
    except Failed as error:
        say(f"it is done, but could not be looked at: {error}")
        return
    if other := bindings.missed(key, wanted, pools):
        raise Failed(other)
