"""What the operator sends: orders to workers, and notices for the log."""

import asyncio
import contextlib
import getpass
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from rabbitbal.operator.errors import Failed
from rabbitbal.runtime.broker import Disconnected, Publisher, Server, Verdict
from rabbitbal.runtime.lifecycle import instance_name
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind

ROLE = "operator"
TIMEOUT = 10.0
MOST_WHO = 200


class Voice:
    """Publishes as the operator: the broker checks that name, and workers take orders from no other."""

    def __init__(self, publisher: Publisher, instance: str, who: str) -> None:
        self._publisher = publisher
        self._instance = instance
        self._who = who

    async def order(self, kind: Kind, worker: str) -> bool:
        """Whether there is such a worker. Raises Failed."""
        envelope = Envelope(kind, "order", self._instance, user_id=topology.OPERATOR)
        try:
            verdict = await self._publisher.publish(topology.STREAMS, worker, envelope, timeout=TIMEOUT)
        except Disconnected as error:
            raise Failed(f"the broker did not confirm the order: {error}") from error
        if verdict is Verdict.REJECTED:
            raise Failed(f"the queue of {worker} is full")
        return verdict is Verdict.ROUTED

    async def notice(self, event: str, **fields: object) -> bool:
        """Whether the broker has it for the log."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        said = json.dumps({"event": event, "who": self._who, "when": when, **fields})
        envelope = Envelope(Kind.NOTICE, "notice", self._instance, user_id=topology.OPERATOR)
        key = topology.notice_key(ROLE, self._instance)
        try:
            verdict = await self._publisher.publish(topology.EVENTS, key, envelope, said.encode(), timeout=TIMEOUT)
        except Disconnected:
            return False
        return verdict is Verdict.ROUTED


@contextlib.asynccontextmanager
async def speaking(server: Server, who: str) -> AsyncIterator[Voice]:
    """``who`` does it, for the log; if empty, the user. Raises Failed where the broker cannot be reached."""
    instance = instance_name()
    publisher = Publisher(f"operator {instance}", server)
    link = asyncio.ensure_future(publisher.link.run())
    up = asyncio.ensure_future(publisher.link.up.wait())
    try:
        await asyncio.wait((link, up), timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            why = f": {link.exception()}" if link.done() and not link.cancelled() else ""
            raise Failed(f"the broker cannot be reached{why}")
        yield Voice(publisher, instance, (who or _user())[:MOST_WHO])
    finally:
        up.cancel()
        link.cancel()
        await asyncio.wait((link, up))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ROLE
