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

USER = "operator"
TIMEOUT = 10.0


class Voice:
    """Publishes as the operator."""

    def __init__(self, publisher: Publisher, instance: str, who: str) -> None:
        self._publisher = publisher
        self._instance = instance
        self._who = who

    async def order(self, kind: Kind, worker: str) -> bool:
        """Whether there is such a worker. Raises Failed."""
        envelope = Envelope(kind, "order", self._instance, user_id=USER)
        try:
            verdict = await self._publisher.publish(topology.STREAMS, worker, envelope, timeout=TIMEOUT)
        except Disconnected as error:
            raise Failed(f"the broker did not take the order: {error}") from error
        return verdict is Verdict.ROUTED

    async def notice(self, event: str, **fields: object) -> bool:
        """Whether the log will have it."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        said = json.dumps({"event": event, "who": self._who, "when": when, **fields})
        envelope = Envelope(Kind.NOTICE, "notice", self._instance, user_id=USER)
        key = topology.notice_key("operator", self._instance)
        try:
            verdict = await self._publisher.publish(topology.EVENTS, key, envelope, said.encode(), timeout=TIMEOUT)
        except Disconnected:
            return False
        return verdict is Verdict.ROUTED


@contextlib.asynccontextmanager
async def speaking(server: Server, who: str) -> AsyncIterator[Voice]:
    """Raises Failed where the broker cannot be reached."""
    instance = instance_name()
    publisher = Publisher(f"operator {instance}", server)
    link = asyncio.ensure_future(publisher.link.run())
    try:
        try:
            await asyncio.wait_for(publisher.link.up.wait(), TIMEOUT)
        except TimeoutError:
            raise Failed("the broker cannot be reached") from None
        yield Voice(publisher, instance, who or _user())
    finally:
        link.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await link


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"
