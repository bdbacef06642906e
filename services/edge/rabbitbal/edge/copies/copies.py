"""How many workers get a request, and what its client gets of their answers."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from rabbitbal.edge.copies.body import SharedBody
from rabbitbal.edge.copies.gather import Gather
from rabbitbal.edge.copies.group import Background, Begin, Copy, Group
from rabbitbal.edge.copies.hedge import Hedges
from rabbitbal.edge.copies.multipart import combined, failed
from rabbitbal.edge.copies.race import first_good
from rabbitbal.edge.copies.shadow import Shadows
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.spool import Spool, SpoolSpace
from rabbitbal.edge.ticket import Ending, Order, Source
from rabbitbal.routes.policy import Mode
from rabbitbal.routes.table import Route
from rabbitbal.wire.envelope import Leg
from rabbitbal.wire.fields import Fields
from rabbitbal.wire.reasons import Reason


class Copies:
    """Carries requests as their routes say."""

    def __init__(self, pending: Pending, spools: SpoolSpace) -> None:
        self._pending = pending
        self._spools = spools
        self._background: Background = set()
        self._shadows = Shadows(pending)
        self._hedges = Hedges(pending, self._background)

    def stats(self) -> dict[str, object]:
        """Hedges and shadows since the start."""
        return {"hedges": self._hedges.stats(), "shadows": self._shadows.stats()}

    async def run(self, order: Order, route: Route, keys: tuple[str, ...], begin: Begin) -> Ending:
        """Carry a request to its ending, as `Pending.run` does. ``order`` has the first of the keys.

        A request that asks for an upgrade goes to the first key alone: two connections cannot be one.
        """
        policy = route.policy
        if (policy.mode is Mode.ONE and policy.hedge is None) or order.upgrade is not None:
            return await self._pending.run(order, begin)
        if policy.mode is Mode.FIRST:
            return await self._first(order, keys, begin)
        if policy.mode is Mode.ALL:
            return await self._all(order, keys, policy.part_limit, begin)
        if policy.mode is Mode.SHADOW:
            return await self._shadows.run(order, keys, policy.sample, begin)
        assert policy.hedge is not None  # noqa: S101 - what is left of mode one
        return await self._hedges.run(order, route.name, policy.hedge, begin)

    async def _first(self, order: Order, keys: tuple[str, ...], begin: Begin) -> Ending:
        group, copies = self._start(order, keys, Leg.FIRST, begin)
        winner: Ending | None = None
        try:
            winner = await first_good(copies)
            return winner
        finally:
            group.end(winner)

    async def _all(self, order: Order, keys: tuple[str, ...], limit: int, begin: Begin) -> Ending:
        loop = asyncio.get_running_loop()
        started = loop.time()
        group, copies = self._start(order, keys, Leg.ALL, begin)
        gather = Gather(self._pending, limit)
        # What holds if this is cancelled: the edge goes down, and the client hears it by the close.
        reason: Reason | None = Reason.CLIENT_GONE
        response = self._pending.error(Reason.CLIENT_GONE)
        fields: Fields = []
        try:
            parts = await gather.parts(copies)
            if not group.left:
                reason = None
                if all(part.reason is not None for part in parts):
                    reason = parts[0].reason
                response = self._pending.error(reason) if reason is not None else combined(parts)
                names = failed(parts)
                fields = [(b"rabbitbal-failed", names)] if names and reason is None else []
        except Exception:
            reason, response = Reason.EDGE_ERROR, self._pending.error(Reason.EDGE_ERROR)
            raise
        finally:
            gather.release()
            group.end(None)
            total = loop.time() - started
            size = len(response.body) if reason is None and order.method != "HEAD" else 0
            self._pending.gathered(group.name, order, reason, response.status, size, total)
        return Ending(response, reason, None, 1, total, None, fields=fields)

    def _start(self, order: Order, keys: tuple[str, ...], leg: Leg, begin: Begin) -> tuple[Group, list[Copy]]:
        group = Group(self._pending, self._background)
        source = self._reader(order.source, group)
        copies = [group.start(replace(order, key=key, source=source()), leg) for key in keys]
        begin(group)
        return group, copies

    def _reader(self, source: Source | None, group: Group) -> "Callable[[], Source | None]":
        if source is None:
            return lambda: None
        return SharedBody(source, Spool(self._spools), group.give_up).reader
