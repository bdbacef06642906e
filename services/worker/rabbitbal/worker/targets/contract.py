"""What every target is, and the three ways in which one can fail."""

from typing import Protocol

from rabbitbal.wire.message import Request, Response


class TargetError(Exception):
    """The target cannot be loaded or started. The text is one line for the operator and names the variable."""


class AppRaised(Exception):
    """The application raised before its response was complete. ``__cause__`` is what it raised."""


class BadResponse(Exception):
    """The application or the upstream broke its protocol. The text names the misuse."""


class Target(Protocol):
    """Turns requests into responses, several at a time."""

    async def start(self) -> None:
        """Make ready. Raises TargetError."""

    async def stop(self) -> None:
        """End what was started. Bounded in time; raises nothing."""

    async def __call__(self, request: Request) -> Response:
        """The response to a request. Raises AppRaised or BadResponse; cancelling it cancels the work."""
