"""What every target is, what it is given, and the three ways in which one can fail."""

from collections.abc import Iterable
from typing import Protocol

from rabbitbal.wire.fields import Field
from rabbitbal.wire.message import Request


class TargetError(Exception):
    """The target cannot be loaded or started. The text is one line for the operator and names the variable."""


class AppRaised(Exception):
    """The application raised before its response was complete. ``__cause__`` is what it raised."""


class BadResponse(Exception):
    """The application or the upstream broke its protocol. The text names the misuse."""


class Body(Protocol):
    """The body of a request; after an upgrade, the bytes that the client sends."""

    @property
    def ended(self) -> bool:
        """It is known that nothing more will be read."""

    async def read(self) -> bytes:
        """The next piece as it arrived, at most 64 KiB; b"" at the end and ever after. Raises ConnectionError where the
        rest will never come."""


class Answer(Protocol):
    """The response to a request; after an upgrade, the bytes that the client gets.

    Head and pieces go out by themselves, at the loop's next turn at the earliest: a response that is finished before
    travels in one message.
    """

    @property
    def started(self) -> bool: ...

    @property
    def finished(self) -> bool: ...

    async def start(self, status: int, fields: Iterable[Field]) -> None:
        """Status (200 to 599, or 101 to a request with ``upgrade``) and fields. Raises BadResponse."""

    async def write(self, chunk: bytes) -> None:
        """A piece of body. Waits while the client's window is full. Raises BadResponse, and ConnectionError where
        nobody takes it any longer."""

    async def finish(self) -> None:
        """The response is complete. Raises BadResponse where a declared length was not met."""


class Target(Protocol):
    """Turns requests into responses, several at a time."""

    detachable: bool
    """Whether an answer that goes on for long may leave its slot to another request. Not where it holds a thread."""

    async def start(self) -> None:
        """Make ready. Raises TargetError."""

    def drain(self) -> None:
        """The worker is leaving: end what would never end by itself (WebSockets, by 1001). Raises nothing."""

    async def stop(self) -> None:
        """End what was started. Bounded in time; raises nothing."""

    async def __call__(self, request: Request, body: Body, answer: Answer) -> None:
        """Answer a request. Returns when the answer is finished; raises AppRaised or BadResponse, also in its middle,
        and ConnectionError where the client is lost; cancelling it cancels the work. ``request.body`` is only where
        ``body`` begins."""
