"""Changes bindings by AMQP while requests flow."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from rabbitbal.operator.errors import Failed
from rabbitbal.operator.interrupts import uninterrupted
from rabbitbal.runtime.broker import LOSSES, Server, Topologist, losses_named
from rabbitbal.wire import topology

# Seconds for a connection or a change, and between attempts to undo one.
TIMEOUT = 10.0
PAUSE = 1.0
ATTEMPTS = 5


@dataclass(frozen=True)
class Change:
    """``gap`` is the time in seconds in which the key led nowhere, None where it never did; ``at`` when it began to
    lead where it leads now, in seconds since the Unix epoch."""

    key: str
    origin: tuple[str, ...]
    to: tuple[str, ...]
    gap: float | None = None
    at: float = 0.0


class HalfDone(Failed):
    """A move failed. ``restored``: the broker has confirmed the old bindings since."""

    def __init__(self, why: str, *, restored: bool) -> None:
        super().__init__(why)
        self.restored = restored


class Binder:
    """Raises Failed with what the broker said. ``noticed`` is called when somebody interrupts what must be finished."""

    def __init__(
        self,
        server: Server,
        noticed: Callable[[], None] = lambda: None,
        connect: Callable[[Server], Topologist] = Topologist,
    ) -> None:
        self._server = server
        self._noticed = noticed
        self._connect = connect

    async def bind(self, key: str, pool: str) -> Change:
        async with self._told() as broker:
            await broker.route(topology.request_key(key), pool)
        return Change(key, (), (pool,), at=time.time())

    async def unbind(self, key: str, pools: tuple[str, ...]) -> Change:
        async with self._told() as broker:
            for pool in pools:
                await broker.unroute(topology.request_key(key), pool)
        return Change(key, pools, (), at=time.time())

    async def move(self, key: str, origin: tuple[str, ...], pool: str) -> Change:
        """Unbind, then bind: the other order would let requests run in both pools. An edge tries again what came back
        in between. Raises HalfDone."""
        async with self._told() as broker:
            # Whoever interrupts this must not leave the key without a pool.
            with uninterrupted(self._noticed):
                return await self._move(broker, key, origin, pool)

    async def _move(self, broker: Topologist, key: str, origin: tuple[str, ...], pool: str) -> Change:
        name = topology.request_key(key)
        began = time.perf_counter()
        try:
            with losses_named():
                async with asyncio.timeout(TIMEOUT):
                    for each in origin:
                        if each != pool:
                            await broker.unroute(name, each)
                    if pool not in origin:
                        await broker.route(name, pool)
        except LOSSES as error:
            raise HalfDone(_said(error), restored=await self._restore(name, origin, pool)) from error
        gap = None if pool in origin else time.perf_counter() - began
        return Change(key, origin, (pool,), gap, time.time())

    async def _restore(self, name: str, origin: tuple[str, ...], pool: str) -> bool:
        """Bind it where it was, on new connections: one that was refused something is closed."""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE)
            # Whether it was bound is not known. Where the pool is gone the broker refuses, and that is as good.
            with contextlib.suppress(*LOSSES):
                async with self._connection() as broker:
                    if pool not in origin:
                        await broker.unroute(name, pool)
            try:
                async with self._connection() as broker:
                    for each in origin:
                        await broker.route(name, each)
            except LOSSES:
                continue
            return True
        return False

    @contextlib.asynccontextmanager
    async def _told(self) -> AsyncIterator[Topologist]:
        """A connection whose losses are told for people."""
        try:
            async with self._connection() as broker:
                yield broker
        except LOSSES as error:
            raise Failed(f"the broker cannot be reached, or refused: {_said(error)}") from error

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Topologist]:
        """Raises one of LOSSES, also when it has taken too long."""
        broker = self._connect(self._server)
        with losses_named():
            async with asyncio.timeout(TIMEOUT):
                await broker.__aenter__()
        try:
            with losses_named():
                yield broker
        finally:
            with contextlib.suppress(*LOSSES):
                async with asyncio.timeout(TIMEOUT):
                    await broker.__aexit__(None, None, None)


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
