"""Runs an ASGI 3 application in process, on the running loop.

The response is whole before it leaves, so an application that raises half way costs its client nothing but an error.
It goes out when it is complete: what the application does afterwards (background tasks) nobody waits for.
"""

import asyncio
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog

from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets.addressing import client, path_and_query, scheme, server
from rabbitbal.worker.targets.cancelling import outlast
from rabbitbal.worker.targets.contract import AppRaised, BadResponse
from rabbitbal.worker.targets.exchange import Exchange
from rabbitbal.worker.targets.lifespan import SHUTDOWN_GRACE, AsgiApp, Lifespan, Scope


class AsgiTarget:
    """At most ``slots`` applications may still run behind their complete response; beyond that, requests wait."""

    def __init__(
        self,
        app: AsgiApp,
        *,
        slots: int,
        response_limit: int,
        shutdown_grace: float = SHUTDOWN_GRACE,
        log: Any = None,
    ) -> None:
        self._app = app
        self._slots = slots
        self._limit = response_limit
        self._grace = shutdown_grace
        self._log = log or structlog.get_logger()
        self._lifespan = Lifespan(app, shutdown_grace=shutdown_grace, log=self._log)
        self._trailing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self._lifespan.startup()

    async def stop(self) -> None:
        if self._trailing:
            _, late = await asyncio.wait(self._trailing, timeout=self._grace)
            for task in late:
                self._log.error("cancelled what the application still did after its response")
                task.cancel()
        await self._lifespan.shutdown()

    async def __call__(self, request: Request) -> Response:
        while len(self._trailing) >= self._slots:
            await asyncio.wait(self._trailing, return_when=asyncio.FIRST_COMPLETED)
        exchange = Exchange(request, self._limit)
        task = asyncio.create_task(self._run(request, exchange), name="request")
        try:
            await asyncio.wait((task, exchange.ended), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The slot is free when the application is through with its cleaning up, not before.
            task.cancel()
            self._trail(task)
            exchange.end()
            await outlast(task)
            raise
        if exchange.response is not None:
            self._trail(task)
            return exchange.response
        exchange.end()
        raise _failure(task, exchange)

    async def _run(self, request: Request, exchange: Exchange) -> None:
        await self._app(http_scope(request, self._lifespan.state), exchange.receive, exchange.send)

    def _trail(self, task: asyncio.Task[None]) -> None:
        self._trailing.add(task)
        task.add_done_callback(self._trailed)

    def _trailed(self, task: asyncio.Task[None]) -> None:
        self._trailing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("the application raised after its response", exc_info=error)


def http_scope(request: Request, state: dict[str, Any]) -> Scope:
    """The connection scope of a request (ASGI specification, "HTTP Connection Scope")."""
    path, query = path_and_query(request.target)
    address = client(request)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        # "The HTTP method name, uppercased."
        "method": request.method.upper(),
        "scheme": scheme(request),
        # "HTTP request target excluding any query string, with percent-encoded sequences and UTF-8 byte sequences
        # decoded into characters." What is no UTF-8 becomes U+FFFD: lone surrogates could not be encoded again by the
        # application, and who needs the bytes has raw_path.
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        # "The original HTTP path component, excluding any query string, unmodified from the bytes that were received".
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        # "Header names must be lowercased."
        "headers": [(name.lower(), value) for name, value in request.fields],
        # The port of the client is known to the edge only.
        "client": (address, 0) if address else None,
        "server": server(request),
        # "The server should make a shallow copy of the namespace": no request sees what another put there.
        "state": state.copy(),
    }


def _failure(task: asyncio.Task[None], exchange: Exchange) -> AppRaised | BadResponse:
    """Why the application ended without a whole response."""
    error = None if task.cancelled() else task.exception()
    if exchange.misuse is not None:
        return exchange.misuse
    if task.cancelled():
        return AppRaised("the application cancelled itself")
    if error is None:
        return BadResponse(exchange.unfinished)
    raised = AppRaised(f"{type(error).__name__}: {error}")
    raised.__cause__ = error
    return raised
