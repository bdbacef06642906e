"""Runs an ASGI 3 application in process, on the running loop.

The client has its response when that is complete: what the application does afterwards (background tasks) nobody waits
for. A WebSocket's application is waited for: its scope "lives as long as the socket itself".
"""

import asyncio
from typing import Any

import structlog

from rabbitbal.wire.envelope import WEBSOCKET
from rabbitbal.wire.message import Request
from rabbitbal.worker.targets.cancelling import stop
from rabbitbal.worker.targets.contract import Answer, AppRaised, BadResponse, Body
from rabbitbal.worker.targets.exchange import ClientGone, Exchange
from rabbitbal.worker.targets.lifespan import SHUTDOWN_GRACE, AsgiApp, Lifespan, Scope
from rabbitbal.worker.targets.scope import http_scope, websocket_scope
from rabbitbal.worker.targets.websocket import WebSocket
from rabbitbal.worker.targets.websocket_connection import TIMES, Times
from rabbitbal.worker.targets.websocket_handshake import Handshake


class AsgiTarget:
    """At most ``slots`` applications may still run behind their complete response; beyond that, requests wait.

    ``websocket_limit`` is the size of the largest message that a WebSocket's client may send, in bytes. ``streams``
    says how many answers may last; here they cost nothing but their tasks.
    """

    detachable = True

    def __init__(
        self,
        app: AsgiApp,
        *,
        slots: int,
        streams: int,
        websocket_limit: int,
        websocket_times: Times = TIMES,
        shutdown_grace: float = SHUTDOWN_GRACE,
        log: Any = None,
    ) -> None:
        self._app = app
        self._slots = slots
        self._limit = websocket_limit
        self._times = websocket_times
        self._grace = shutdown_grace
        self._log = log or structlog.get_logger()
        self._lifespan = Lifespan(app, shutdown_grace=shutdown_grace, log=self._log)
        self._trailing: set[asyncio.Task[None]] = set()
        self._sockets: set[WebSocket] = set()

    async def start(self) -> None:
        await self._lifespan.startup()

    def drain(self) -> None:
        for socket in list(self._sockets):
            socket.going_away()

    async def stop(self) -> None:
        if self._trailing:
            _, late = await asyncio.wait(self._trailing, timeout=self._grace)
            for task in late:
                self._log.error("cancelled what the application still did after its response")
                task.cancel()
        await self._lifespan.shutdown()

    async def __call__(self, request: Request, body: Body, answer: Answer) -> None:
        while len(self._trailing) >= self._slots:
            await asyncio.wait(self._trailing, return_when=asyncio.FIRST_COMPLETED)
        if request.upgrade == WEBSOCKET:
            await self._socket(request, body, answer)
        else:
            await self._exchange(request, body, answer)

    async def _exchange(self, request: Request, body: Body, answer: Answer) -> None:
        exchange = Exchange(request, body, answer)
        task = self._run(http_scope(request, self._lifespan.state), exchange)
        try:
            await asyncio.wait((task, exchange.ended), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not exchange.complete:
                exchange.disconnect()
                await stop(task)
            raise
        finally:
            if exchange.complete:
                self._trail(task)
        if exchange.complete:
            return
        exchange.end()
        await stop(task)
        raise _failure(task, exchange) or BadResponse(exchange.unfinished)

    async def _socket(self, request: Request, body: Body, answer: Answer) -> None:
        handshake = Handshake(request, self._limit)
        if (refusal := handshake.refusal) is not None:
            await answer.start(refusal.status, refusal.fields)
            await answer.write(refusal.body)
            await answer.finish()
            return
        socket = WebSocket(handshake, body, answer, self._times)
        task = self._run(websocket_scope(request, self._lifespan.state), socket)
        self._sockets.add(socket)
        try:
            await asyncio.wait((task, socket.failed), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await stop(task)
            failure = _failure(task, socket)
            await socket.close(failed=failure is not None)
        except asyncio.CancelledError:
            socket.disconnect()
            await stop(task)
            raise
        finally:
            self._sockets.discard(socket)
            socket.stop()
        if failure is None and not socket.complete:
            failure = BadResponse(socket.unfinished)
        if failure is not None:
            raise failure

    def _run(self, scope: Scope, conversation: "Exchange | WebSocket") -> asyncio.Task[None]:
        async def run() -> None:
            await self._app(scope, conversation.receive, conversation.send)

        task = asyncio.create_task(run(), name="request")
        # Taken note of, also where nobody asks.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    def _trail(self, task: asyncio.Task[None]) -> None:
        self._trailing.add(task)
        task.add_done_callback(self._trailed)

    def _trailed(self, task: asyncio.Task[None]) -> None:
        self._trailing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("the application raised after its response", exc_info=error)


def _failure(task: asyncio.Task[None], conversation: "Exchange | WebSocket") -> Exception | None:
    """Why the application ended, if that was no return."""
    if conversation.misuse is not None:
        return conversation.misuse
    if conversation.lost is not None:
        return conversation.lost
    if task.cancelled():
        return AppRaised("the application cancelled itself")
    error = task.exception()
    # A send behind the client's back, which the application let pass: "should not log it as an error".
    if error is None or isinstance(error, ClientGone):
        return None
    if isinstance(error, BadResponse):
        return error
    raised = AppRaised(f"{type(error).__name__}: {error}")
    raised.__cause__ = error
    return raised
