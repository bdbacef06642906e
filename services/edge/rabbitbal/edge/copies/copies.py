"""How many workers get a request, and what its client gets of their answers."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from secrets import token_hex

from rabbitbal.edge.copies.body import SharedBody
from rabbitbal.edge.copies.gather import Gather
from rabbitbal.edge.copies.group import Begin, Copy, Group
from rabbitbal.edge.copies.hedging import Hedging, Hedgings
from rabbitbal.edge.copies.multipart import combined, failed
from rabbitbal.edge.copies.race import first_good
from rabbitbal.edge.copies.shadow import Shadows
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.spool import Spool, SpoolSpace
from rabbitbal.edge.ticket import Ending, Order, Source, Ticket
from rabbitbal.routes.policy import Hedge, Mode
from rabbitbal.routes.table import Route
from rabbitbal.wire.envelope import Leg


class Copies:
    """Carries requests as their routes say."""

    def __init__(self, pending: Pending, spools: SpoolSpace) -> None:
        self._pending = pending
        self._spools = spools
        self._shadows = Shadows(pending)
        self._hedgings = Hedgings()

    def stats(self) -> dict[str, object]:
        """Hedges and shadows since the start."""
        shadows = self._shadows
        return {
            "hedges": self._hedgings.stats(),
            "shadows": {"sent": shadows.sent, "dropped": shadows.dropped, "pending": len(shadows)},
        }

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
            return await self._shadowed(order, keys, policy.sample, begin)
        assert policy.hedge is not None  # noqa: S101 - what is left of mode one
        return await self._hedged(order, self._hedgings.of(route.name), policy.hedge, begin)

    async def _first(self, order: Order, keys: tuple[str, ...], begin: Begin) -> Ending:
        group, copies = self._start(order, keys, Leg.FIRST, token_hex(16), begin)
        winner: Ending | None = None
        try:
            winner = await first_good(group, copies)
        finally:
            group.end(winner)
        return winner

    async def _all(self, order: Order, keys: tuple[str, ...], limit: int, begin: Begin) -> Ending:
        loop = asyncio.get_running_loop()
        started, name = loop.time(), token_hex(16)
        group, copies = self._start(order, keys, Leg.ALL, name, begin)
        gather = Gather(self._pending, limit)
        first: Ending | None = None
        try:
            parts = await gather.parts(copies)
            first = copies[0].task.result()
            total = loop.time() - started
            if all(part.reason is not None for part in parts):
                return replace(first, response=self._pending.error(parts[0].reason or first.reason), stream=None)  # type: ignore[arg-type]
            response = combined(parts)
            self._pending.gathered(name, order, response.status, len(response.body), total)
            fields = [(b"rabbitbal-failed", names)] if (names := failed(parts)) else []
            return Ending(response, None, None, 1, total, None, fields=fields)
        finally:
            gather.release()
            group.end(first)

    async def _shadowed(self, order: Order, keys: tuple[str, ...], sample: float, begin: Begin) -> Ending:
        others = keys[1:]
        if not self._shadows.wanted(order, sample, len(others)):
            return await self._pending.run(order, begin)
        primary = replace(order, leg=Leg.PRIMARY, group=token_hex(16), digested=True)

        def begun(ticket: Ticket) -> None:
            begin(ticket)
            # What is made here runs behind the primary, which leaves in this turn of the loop.
            self._shadows.send(order, others, primary.group or "")

        return await self._pending.run(primary, begun)

    async def _hedged(self, order: Order, hedging: Hedging, hedge: Hedge, begin: Begin) -> Ending:
        loop = asyncio.get_running_loop()
        started = loop.time()
        hedging.requests += 1
        hedging.budget.earn(hedge.budget)
        late = hedge.after if hedge.after is not None else hedging.latency.late()
        # What comes in pieces is on its way to one worker.
        if late is None or not order.repeatable or order.source is not None:
            ending = await self._pending.run(order, begin)
        else:
            ending = await self._twice(order, hedging, late, begin)
        if ending.reason is None:
            hedging.latency.add(loop.time() - started)
        return ending

    async def _twice(self, order: Order, hedging: Hedging, late: float, begin: Begin) -> Ending:
        group = Group(self._pending, token_hex(16))
        begin(group)
        winner: Ending | None = None
        try:
            copies = [group.start(order, Leg.PRIMARY)]
            if not await group.first({copies[0].task}, late):
                if hedging.budget.spend():
                    hedging.sent += 1
                    copies.append(group.start(order, Leg.HEDGE))
                else:
                    hedging.refused += 1
            winner = await first_good(group, copies)
            if len(copies) == 2 and copies[1].task.done() and copies[1].task.result() is winner:
                hedging.won += 1
        finally:
            group.end(winner)
        return winner

    def _start(
        self, order: Order, keys: tuple[str, ...], leg: Leg, name: str, begin: Begin
    ) -> tuple[Group, list[Copy]]:
        group = Group(self._pending, name)
        begin(group)
        source = self._reader(order.source)
        return group, [group.start(replace(order, key=key, source=source()), leg) for key in keys]

    def _reader(self, source: Source | None) -> "Callable[[], Source | None]":
        if source is None:
            return lambda: None
        body = SharedBody(source, Spool(self._spools))
        return body.reader
