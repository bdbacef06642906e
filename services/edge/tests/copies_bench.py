"""Copies of requests with a broker in memory. Use: ``from tests.copies_bench import CopiesBench``."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from rabbitbal.edge.copies import Copies
from rabbitbal.edge.copies.group import Departure
from rabbitbal.edge.spool import SpoolSpace
from rabbitbal.edge.ticket import Ending, Order
from rabbitbal.routes.match import Match
from rabbitbal.routes.policy import Policy
from rabbitbal.routes.table import Route
from rabbitbal.wire.envelope import Kind, Leg
from rabbitbal.wire.message import Response, encode_response
from rabbitbal.wire.reasons import Reason
from tests.edge_bench import OK, ORDER, Bench, turns, until

BAD = Response(500, [(b"Content-Length", b"3")], b"bad")
HEAD = Response(200, [(b"Content-Type", b"text/plain")], b"first")
PLENTY = 1 << 40


class CopiesBench(Bench):
    """Carries requests by routes."""

    def __init__(self, max_pending: int = 10, buffer_limit: int = 1 << 20, spool: int = 1 << 20) -> None:
        super().__init__(max_pending, buffer_limit)
        self.spool = spool
        self.spools = SpoolSpace(spool, spool)
        self.copies = Copies(self.pending, self.spools)
        self.departure: Departure

    def run(self, policy: Policy, *keys: str, order: Order = ORDER) -> "asyncio.Task[Ending]":
        route = Route("r", Match(), policy, keys)

        def begin(departure: Departure) -> None:
            self.departure = departure

        order = replace(order, key=keys[0])
        return asyncio.ensure_future(self.copies.run(order, route, keys, begin))

    async def published(self, number: int) -> None:
        await until(lambda: len(self.broker.requests) >= number)
        await turns()

    def number(self, key: str) -> int:
        """Of the newest publish with this key."""
        found = [number for number, sent in enumerate(self.broker.requests) if sent.key == f"request.{key}"]
        return found[-1]

    def answer_to(self, key: str, response: Response = OK, reason: Reason | None = None, worker: str = "") -> None:
        payload = encode_response(response)
        self.reply(Kind.RESPONSE, self.number(key), worker=worker or f"w-{key}", payload=payload, reason=reason)

    def head_to(self, key: str, status: int = 200) -> None:
        payload = encode_response(replace(HEAD, status=status), more=True)
        self.reply(Kind.RESPONSE, self.number(key), worker=f"w-{key}", payload=payload, more=True)

    def piece_to(self, key: str, body: bytes, sequence: int = 1, *, more: bool = False) -> None:
        self.reply(Kind.BODY, self.number(key), worker=f"w-{key}", payload=body, sequence=sequence, more=more)

    def told_endings(self) -> list[tuple[Leg | None, Reason | None]]:
        return [(sent.envelope.leg, sent.envelope.reason) for sent in self.broker.told(Kind.ENDED)]

    async def assert_all_over(self) -> None:
        """No ticket, no task, no byte, and no spool."""
        await until(lambda: not len(self.pending) and not len(self.pending._notices) and not self.copies._background)
        await until(lambda: not self.copies._shadows._tasks)
        self.assert_forgotten()
        assert self.spools._left == self.spool


class Pieces:
    """A body that the test sends."""

    repeatable = False

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = False

    async def pieces(self) -> AsyncIterator[bytes]:
        while (piece := await self.queue.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        self.closed = True


def uploaded(bench: CopiesBench, worker: str) -> bytes:
    return b"".join(piece[2] for piece in bench.pieces(worker))
