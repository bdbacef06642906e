"""A request in the edge: what is to be done, how far it is, how it ended."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from rabbitbal.runtime.streams import Broken, Inlet, Outlet
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Leg
from rabbitbal.wire.fields import Fields
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason


class Source(Protocol):
    """The part of a request's body that does not travel with its head."""

    @property
    def repeatable(self) -> bool:
        """It can be had again from its start."""

    def pieces(self) -> AsyncIterator[bytes]:
        """It, from its start. Raises ClientGone and BodyTooLarge."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Order:
    """A request to be carried, and the policy of its route. Times are in seconds."""

    payload: bytes
    method: str
    route: str
    """The name of the route, for people."""
    repeatable: bool
    timeout: float
    route_grace: float
    broker_grace: float
    traceparent: str | None = None
    caller_span: str | None = None
    """Set where the edge takes part in the trace (`edge.traces`)."""
    upgrade: str | None = None
    source: Source | None = None
    # Bytes of memory that it may take besides its payload.
    reserve: int = 0
    key: str = topology.DEFAULT_ROUTE
    """The routing key, behind `request.`."""
    leg: Leg | None = None
    group: str | None = None
    partition: str | None = None
    """Of a sticky pool."""
    persistent: bool = False
    digested: bool = False
    """Somebody will compare the response: of a streamed body the digest is told."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended, or how its response begins. ``reason`` is None when the application answered. Times are in
    seconds."""

    response: Response
    reason: Reason | None
    worker: str | None
    attempt: int
    total: float
    app: float | None
    pool: str | None = None
    stream: "Ticket | None" = None
    """The response's body goes on: it is read here, and `Pending.close` then ends the request."""
    fields: Fields = field(default_factory=list)
    """Of our own, for the client."""


class Ticket:
    """A pending request."""

    __slots__ = (
        "attempt",
        "claimed_by",
        "confirmed",
        "copied",
        "credit",
        "deadline",
        "doubtful",
        "envelope",
        "ever_claimed",
        "forsaken",
        "granting",
        "held",
        "inlet",
        "losses",
        "opened",
        "order",
        "outcome",
        "outlet",
        "pump",
        "sender",
        "sent",
        "started",
        "streaming",
        "watched",
    )

    def __init__(self, envelope: Envelope, order: Order, loop: asyncio.AbstractEventLoop) -> None:
        self.envelope = envelope
        self.order = order
        self.started = loop.time()
        self.deadline = self.started + order.timeout
        self.outcome: asyncio.Future[tuple[Reason | None, Response | None, Envelope | None]] = loop.create_future()
        self.attempt = 1
        self.losses = 0
        self.sent = False
        # The broker said that a queue has this attempt.
        self.confirmed = False
        self.copied = False
        # It is counted, see `Notices`.
        self.opened = False
        # The answer may have come while we could not hear it.
        self.doubtful = False
        self.claimed_by: str | None = None
        self.ever_claimed = False
        self.sender: asyncio.Task[None] | None = None
        # The request's body on its way to the worker that claimed it.
        self.outlet: Outlet | None = None
        self.pump: asyncio.Task[None] | None = None
        # The worker, attempt and next piece of a body that goes to another attempt now.
        self.forsaken: tuple[str, int] | None = None
        # The response's body, and the worker and attempt that it comes from.
        self.inlet: Inlet | None = None
        self.streaming: tuple[str, int] | None = None
        self.credit = 0
        self.granting: asyncio.Task[None] | None = None
        self.held = 0
        self.watched: str | None = None

    @property
    def settled(self) -> bool:
        """The client's answer is decided, or has begun."""
        return self.outcome.done()

    @property
    def repeatable(self) -> bool:
        """Whether it may be published again although it may have been started."""
        return self.order.repeatable and (self.order.source is None or self.order.source.repeatable)

    @property
    def claimed_first(self) -> bool:
        """Its worker claims it before it starts it: its body follows, or it is pinned."""
        return self.order.source is not None or self.order.partition is not None

    @property
    def never_started(self) -> bool:
        """It would have been claimed, and nobody has."""
        return self.claimed_first and not self.ever_claimed

    @property
    def kept_by_broker(self) -> bool:
        """It waits in a queue that outlives the broker's restart, or was taken from there."""
        return self.order.persistent and self.confirmed

    @property
    def uploading(self) -> bool:
        """The request's body is still on its way. (What a client sends through a tunnel has no end to wait for.)"""
        return self.pump is not None and not self.pump.done() and self.order.upgrade is None

    def settle(self, reason: Reason | None, response: Response | None = None, reply: Envelope | None = None) -> None:
        if not self.outcome.done():
            self.outcome.set_result((reason, response, reply))

    def client_left(self) -> None:
        self.settle(Reason.CLIENT_GONE)
        if self.inlet is not None:
            self.inlet.fail(Broken("the client left", Reason.CLIENT_GONE))

    def supersede(self) -> None:
        """Another copy was answered first."""
        self.settle(Reason.SUPERSEDED)

    async def read(self) -> bytes:
        """The next piece of the response's body, b"" at its end. Raises Broken."""
        assert self.inlet is not None  # noqa: S101 - an Ending with a stream has one
        return await self.inlet.read()
