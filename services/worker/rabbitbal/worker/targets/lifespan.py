"""The ASGI lifespan protocol: startup and shutdown of an application that lives as one task."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from rabbitbal.worker.targets.contract import TargetError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

SHUTDOWN_GRACE = 10.0
# How long the application may take to return once it has said that it has shut down.
_RETURN_GRACE = 1.0


class Lifespan:
    """``state`` is the namespace that the application fills at startup; requests get shallow copies of it."""

    def __init__(self, app: AsgiApp, *, shutdown_grace: float = SHUTDOWN_GRACE, log: Any = None) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._grace = shutdown_grace
        self._log = log or structlog.get_logger()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Return when the application has started or has shown that it knows no lifespan. Raises TargetError."""
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        # The text with which a phase failed, or None where it succeeded.
        self._started: asyncio.Future[str | None] = loop.create_future()
        self._stopped: asyncio.Future[str | None] = loop.create_future()
        self._events.put_nowait({"type": "lifespan.startup"})
        task = asyncio.create_task(self._run(), name="lifespan")
        try:
            await asyncio.wait((task, self._started), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not self._started.done():
            # "If an exception is raised when calling the application callable with a lifespan.startup message or a
            # scope of type lifespan, the server must continue but not send any lifespan events."
            self._log.info("the application has no lifespan", raised=repr(_outcome(task)))
            return
        task.add_done_callback(self._ended)
        self._task = task
        if (failure := self._started.result()) is not None:
            # Frameworks send a whole traceback here: the last line says what it was.
            self._log.error("the application failed to start", message=failure)
            await self._finish(task)
            reason = (failure.strip().splitlines() or ["it gives no reason"])[-1]
            raise TargetError(f"the application of RABBITBAL_APP refused to start: {reason}")

    async def shutdown(self) -> None:
        """Tell the application to shut down, and wait for it no longer than the grace."""
        if (task := self._task) is None or task.done():
            return
        self._events.put_nowait({"type": "lifespan.shutdown"})
        try:
            await asyncio.wait((task, self._stopped), timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
            if self._stopped.done() and (failure := self._stopped.result()) is not None:
                self._log.error("the application failed to shut down", message=failure)
            elif not self._stopped.done() and not task.done():
                self._log.error("the application did not shut down in time", seconds=self._grace)
                return
            await self._finish(task)
        finally:
            task.cancel()

    async def _finish(self, task: asyncio.Task[None]) -> None:
        await asyncio.wait((task,), timeout=_RETURN_GRACE)
        task.cancel()

    async def _run(self) -> None:
        # "Applications should store the objects/data they want to persist there during the startup phase": the state.
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._app(scope, self._events.get, self._send)

    async def _send(self, message: Message) -> None:
        match message.get("type"):
            case "lifespan.startup.complete":
                _settle(self._started, None)
            case "lifespan.startup.failed":
                _settle(self._started, str(message.get("message", "")))
            case "lifespan.shutdown.complete":
                _settle(self._stopped, None)
            case "lifespan.shutdown.failed":
                _settle(self._stopped, str(message.get("message", "")))
            case other:
                raise RuntimeError(f"the application sent {other!r} on the lifespan scope")

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = _outcome(task)
        # After startup.failed, frameworks raise what they have just reported.
        if error is not None and self._started.result() is None:
            self._log.error("the application's lifespan raised", exc_info=error)


def _settle(future: "asyncio.Future[str | None]", result: str | None) -> None:
    if not future.done():
        future.set_result(result)


def _outcome(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()
