"""Which pool a key leads to, and changing that while requests flow."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.management import Pool
from rabbitbal.operator.patterns import is_pattern, matches, overlap
from rabbitbal.runtime.broker import LOSSES, Server, Topologist
from rabbitbal.wire import topology

ATTEMPTS = 3


@dataclass(frozen=True)
class Change:
    """``gap`` is the time in seconds in which the key led nowhere, None where it never did; ``at`` when it began to
    lead where it leads now, in seconds since the Unix epoch."""

    key: str
    origin: tuple[str, ...]
    to: tuple[str, ...]
    gap: float | None
    at: float


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
    """Bindings to other pools that match what this one does: such requests would run in both."""
    kept = set(but)
    return [
        f"{binding} → {name}"
        for name, pool in pools.items()
        for binding in pool.bindings
        if name not in kept and overlap(binding, key)
    ]


def existing(name: str, pools: dict[str, Pool]) -> Pool:
    """Raises Failed."""
    if name not in pools:
        raise Failed(f"there is no pool {name!r}; there are: {', '.join(pools) or 'none'}")
    return pools[name]


class Binder:
    """Changes bindings on a connection of its own. Raises Failed, and says what the state is then."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def bind(self, key: str, pool: str) -> Change:
        async with self._connection() as broker:
            await broker.route(topology.request_key(key), pool)
        return Change(key, (), (pool,), None, time.time())

    async def unbind(self, key: str, pools: tuple[str, ...]) -> Change:
        async with self._connection() as broker:
            for pool in pools:
                await broker.unroute(topology.request_key(key), pool)
        return Change(key, pools, (), None, time.time())

    async def move(self, key: str, origin: tuple[str, ...], pool: str) -> Change:
        """Unbind, then bind: the other order would let requests run in both. An edge tries again what came back in
        between."""
        async with self._connection() as broker:
            # Whoever interrupts this command must not leave the key without a pool.
            return await asyncio.shield(asyncio.ensure_future(self._move(broker, key, origin, pool)))

    async def _move(self, broker: Topologist, key: str, origin: tuple[str, ...], pool: str) -> Change:
        name = topology.request_key(key)
        began = time.perf_counter()
        try:
            for each in origin:
                await broker.unroute(name, each)
            await broker.route(name, pool)
        except LOSSES as error:
            await self._restore(name, key, origin, pool, error)
        return Change(key, origin, (pool,), time.perf_counter() - began, time.time())

    async def _restore(self, name: str, key: str, origin: tuple[str, ...], pool: str, why: BaseException) -> None:
        """Bind it where it was, on a new connection: one that was refused something is closed."""
        for _ in range(ATTEMPTS):
            try:
                async with Topologist(self._server) as broker:
                    await broker.unroute(name, pool)
                    for each in origin:
                        await broker.route(name, each)
                raise Failed(f"{key} stays with {', '.join(origin)}: {why or type(why).__name__}")
            except LOSSES:
                await asyncio.sleep(1)
        raise Failed(
            f"{key} may lead nowhere now: {why or type(why).__name__}. Bind it: rabbitbal pools bind {key} {origin[0]}"
        )

    def _connection(self) -> "_Connection":
        return _Connection(self._server)


class _Connection:
    """A Topologist whose losses are told for people."""

    def __init__(self, server: Server) -> None:
        self._topologist = Topologist(server)

    async def __aenter__(self) -> Topologist:
        try:
            return await self._topologist.__aenter__()
        except LOSSES as error:
            raise Failed(f"the broker cannot be reached: {error or type(error).__name__}") from error

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        await self._topologist.__aexit__()
        if isinstance(error, LOSSES):
            raise Failed(f"the broker refused: {error or type(error).__name__}") from error
