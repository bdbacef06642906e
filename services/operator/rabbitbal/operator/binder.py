"""Changes bindings by AMQP, on a connection of its own, while requests flow."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from rabbitbal.operator.errors import Failed
from rabbitbal.runtime.broker import LOSSES, Server, Topologist, losses_named
from rabbitbal.wire import topology

# Seconds for a change, and between attempts to undo one.
TIMEOUT = 10.0
PAUSE = 1.0
ATTEMPTS = 5

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Change:
    """``gap`` is the time in seconds in which the key led nowhere, None where it never did; ``at`` when it began to
    lead where it leads now, in seconds since the Unix epoch."""

    key: str
    origin: tuple[str, ...]
    to: tuple[str, ...]
    gap: float | None
    at: float


class Undone(Failed):
    """A move failed between its two halves. ``restored``: the key leads where it led before, as far as the broker has
    confirmed."""

    def __init__(self, why: str, *, restored: bool) -> None:
        super().__init__(why)
        self.restored = restored


class Binder:
    """Raises Failed, whose text says what the broker refused."""

    def __init__(
        self,
        server: Server,
        connect: Callable[[Server], Topologist] = Topologist,
        noticed: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server
        self._connect = connect
        self._noticed = noticed
        """Called when somebody interrupts what must not be."""

    async def bind(self, key: str, pool: str) -> Change:
        async with self._connected() as broker:
            await broker.route(topology.request_key(key), pool)
        return Change(key, (), (pool,), None, time.time())

    async def unbind(self, key: str, pools: tuple[str, ...]) -> Change:
        async with self._connected() as broker:
            for pool in pools:
                await broker.unroute(topology.request_key(key), pool)
        return Change(key, pools, (), None, time.time())

    async def move(self, key: str, origin: tuple[str, ...], pool: str) -> Change:
        """Unbind, then bind: the other order would let requests run in both. An edge tries again what came back in
        between. Raises Undone where only the first half could be done."""
        async with self._connected() as broker:
            # Whoever interrupts this command must not leave the key without a pool.
            with _uninterrupted(self._noticed):
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
            restored = await self._restore(name, origin, pool)
            raise Undone(_said(error), restored=restored) from error
        gap = None if pool in origin else time.perf_counter() - began
        return Change(key, origin, (pool,), gap, time.time())

    async def _restore(self, name: str, origin: tuple[str, ...], pool: str) -> bool:
        """Bind it where it was, on new connections: one that was refused something is closed."""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE)
            if pool not in origin:
                # Whether it was bound may not be known. Where there is no such pool, this is refused.
                with contextlib.suppress(*LOSSES):
                    await self._apart(lambda broker: broker.unroute(name, pool))
            try:
                for each in origin:
                    await self._apart(lambda broker, each=each: broker.route(name, each))  # type: ignore[misc]
            except LOSSES:
                continue
            return True
        return False

    async def _apart(self, act: "Callable[[Topologist], asyncio.Future[None]] | object") -> None:
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Topologist]:
        yield self._connect(self._server)


@contextlib.contextmanager
def _uninterrupted(noticed: Callable[[], None]) -> Iterator[None]:
    yield


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
