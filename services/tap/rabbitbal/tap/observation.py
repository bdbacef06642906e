"""A message that the tap has read, and what all its parts may look at."""

from dataclasses import dataclass
from typing import Any, Protocol

from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.message import Request, Response, decode_request, decode_response


@dataclass(slots=True)
class Observation:
    """``at`` is when it was read, in seconds since the Unix epoch.

    The payload's HTTP is read once: ``request`` is that of a request, or of an `ended` event that brings one;
    ``response`` is a response or the head of one. ``error`` says why there is none although there should be.
    """

    at: float
    envelope: Envelope
    payload: bytes
    user: str | None = None
    """The broker's user that sent it, where the broker was asked to check."""
    redelivered: bool = False
    """It was read before, but perhaps by a tap that did not finish with it."""
    request: Request | None = None
    response: Response | None = None
    error: str | None = None
    line: dict[str, Any] | None = None
    """The line of the access log that it completes."""
    key: str = ""
    """The routing key that it came by: of a response, it names the edge that waits."""


def observe(
    at: float, envelope: Envelope, payload: bytes, user: str | None, *, redelivered: bool, key: str = ""
) -> Observation:
    seen = Observation(at, envelope, payload, user, redelivered, key=key)
    try:
        if envelope.kind is Kind.REQUEST or (envelope.kind is Kind.ENDED and payload):
            seen.request = decode_request(payload, more=bool(envelope.more))
        elif envelope.kind is Kind.RESPONSE:
            seen.response = decode_response(payload, more=bool(envelope.more))
    except WireError as error:
        seen.error = str(error)
    return seen


class Part(Protocol):
    """Something that the tap does with what it reads. It never waits, and what it remembers is bounded."""

    def see(self, seen: Observation) -> None:
        """Each message, in the order of the queue. Some come twice (``redelivered``)."""
