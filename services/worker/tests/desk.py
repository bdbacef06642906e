"""A broker in memory, as far as consumers go: they are confirmed or refused, counted, cancelled and lost."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rabbitbal.runtime.broker import Delivery
from rabbitbal.wire.topology import PARTITIONS, partition_queue
from rabbitbal.worker import broker, consumer, leases, partitions, pools

Lost = Callable[[str], None]
Handle = Callable[[Delivery], Awaitable[None]]


class Channel:
    """Of one consumer, or for questions."""

    def __init__(self, desk: "Desk", prefetch: int, lost: Lost | None) -> None:
        self._desk = desk
        self.prefetch = prefetch
        self.lost: Lost = lost or (lambda why: None)
        self.queue = ""
        self.tag: str | None = None
        self.priority = 0
        self.exclusive = False
        self.cancelled = False
        self.closed = False
        self.handle: Handle | None = None

    async def close(self) -> None:
        self.closed = True
        self.lost("closed by us")

    def drop(self, why: str = "consumer cancelled by the broker") -> None:
        """The broker ends the consumer."""
        self.queue = ""
        self.lost(why)


class Desk:
    """Stands for a session and what is behind it; several workers may share one."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.missing: set[str] = set()
        self.sticky: set[str] = set()
        self.before_confirm: Callable[[], Awaitable[None]] | None = None
        self.questions = 0
        self.hidden: set[str] = set()
        """Queues whose consumers are not seen by who asks: somebody was faster in between."""
        self.refused = 0

    async def channel(self, *, confirms: bool = False, prefetch: int = 0, lost: Lost | None = None) -> Channel:
        self.channels.append(Channel(self, prefetch, lost))
        return self.channels[-1]

    async def exists(self, queue: str) -> bool:
        return queue not in self.missing and queue in {partition_queue(pool, 0) for pool in self.sticky}

    async def consumers(self, channel: Channel, queue: str) -> int:
        self.questions += 1
        if queue in self.missing:
            await channel.close()
            raise ConnectionError("no such queue")
        return 0 if queue in self.hidden else len(self.consuming(queue))

    async def consume(
        self,
        channel: Channel,
        queue: str,
        handle: Handle,
        *,
        no_ack: bool = False,
        tag: str | None = None,
        priority: int = 0,
        exclusive: bool = False,
    ) -> Any:
        if queue in self.missing or (exclusive and self.consuming(queue)):
            self.refused += 1
            channel.lost("closed by the broker")
            raise ConnectionError("no such queue, or in exclusive use")
        channel.queue, channel.tag, channel.priority, channel.exclusive = queue, tag, priority, exclusive
        channel.handle = handle
        if self.before_confirm is not None:
            await self.before_confirm()

        async def cancel() -> None:
            channel.cancelled = True

        return cancel

    def consuming(self, queue: str) -> list[Channel]:
        return [one for one in self.channels if one.queue == queue and not one.cancelled and not one.closed]

    def partitions(self, pool: str) -> dict[int, str | None]:
        """The tag of the consumer of each partition that has one."""
        found = {number: self.consuming(partition_queue(pool, number)) for number in range(PARTITIONS)}
        return {number: channels[0].tag for number, channels in found.items() if channels}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (broker, consumer):
            monkeypatch.setattr(module, "consume", self.consume)
        monkeypatch.setattr(partitions, "consumers", self.consumers)
        monkeypatch.setattr(broker, "private_queue", _declared)
        monkeypatch.setattr(pools, "RENEW_PERIOD", 0.002)
        monkeypatch.setattr(leases, "period", lambda members: 0.002)


async def _declared(*_: object) -> None:
    """The private queue is declared."""
