"""Which pool a key leads to, and what speaks against a change. Pure: the pools were read a moment before."""

from collections.abc import Iterable

from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.patterns import is_pattern, matches, overlap
from rabbitbal.operator.pools import Pool, existing


def checked_key(key: str) -> str:
    """Raises Misused."""
    if not is_pattern(key):
        raise Misused(f"{key!r} is no key: words of letters, digits, - and _, joined by dots; * and # stand for words")
    return key


def leads(key: str, pools: dict[str, Pool]) -> list[str]:
    """The pools that requests with this key come to."""
    return [name for name, pool in pools.items() if any(matches(binding, key) for binding in pool.bindings)]


def holders(key: str, pools: dict[str, Pool]) -> tuple[str, ...]:
    """The pools that have exactly this binding."""
    return tuple(name for name, pool in pools.items() if key in pool.bindings)


def conflicts(key: str, but: Iterable[str], pools: dict[str, Pool]) -> list[str]:
    """Bindings to other pools that match some key that this one does: such requests would run in both."""
    kept = set(but)
    return [
        f"{binding} → {name}"
        for name, pool in pools.items()
        for binding in pool.bindings
        if name not in kept and overlap(binding, key)
    ]


def check_bind(key: str, to: str, pools: dict[str, Pool], *, also: bool) -> None:
    """Raises Failed."""
    existing(to, pools)
    others = conflicts(key, (to,), pools)
    if others and not also:
        raise Failed(
            f"{key} is matched by {', '.join(others)} already: such requests would run twice. Move it, or say --also"
        )


def check_move(key: str, to: str, pools: dict[str, Pool], *, force: bool) -> tuple[str, ...]:
    """The pools that have the key now. Raises Failed."""
    target = existing(to, pools)
    now = holders(key, pools)
    if not now:
        wider = conflicts(key, (), pools)
        hint = f" (what matches it: {', '.join(wider)})" if wider else f": use `pools bind {key} {to}`"
        raise Failed(f"{key} is not bound to any pool, so there is nothing to move{hint}")
    if now == (to,):
        return now
    if others := conflicts(key, (*now, to), pools):
        raise Failed(f"{key} is matched by {', '.join(others)}, too: such requests would run twice")
    if not target.workers and not force:
        raise Failed(f"{to} has no workers: requests would wait there until their deadline. Say --force if they come")
    return now


def check_unbind(key: str, pool: str | None, pools: dict[str, Pool]) -> tuple[str, ...]:
    """The pools that it is to be unbound from. Raises Failed."""
    now = holders(key, pools)
    if pool is not None:
        if pool not in pools:
            existing(pool, pools)
        now = tuple(name for name in now if name == pool)
    if not now:
        raise Failed(f"{key} is not bound{f' to {pool}' if pool else ' to any pool'}")
    return now


def missed(key: str, wanted: Iterable[str], pools: dict[str, Pool]) -> str | None:
    """After a change: what is not as it should be, in words."""
    now = holders(key, pools)
    if sorted(now) == sorted(set(wanted)):
        return None
    return f"{key} {state(now)}: somebody else has changed it in the same moment"


def state(now: Iterable[str]) -> str:
    pools = ", ".join(now)
    return f"now leads to {pools}" if pools else "leads nowhere now"
