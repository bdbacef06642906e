"""The tap's HTTP server: what it knows, for people and programs. The compose network `watch` alone reaches it."""

import contextlib
from collections.abc import Iterable, Iterator

import uvicorn
from fastapi import APIRouter, FastAPI

from rabbitbal.tap.guard import Guard

MOST_CONNECTIONS = 256


def build(routers: Iterable[APIRouter], hosts: Iterable[str] = ()) -> FastAPI:
    """The parts' own routers, under one application. ``hosts``: names that it answers to besides its own.

    Its description is at `/api/openapi.json`. FastAPI's page of it would load somebody else's scripts: there is none.
    """
    app = FastAPI(title="Rabbitbal tap", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.add_middleware(Guard, hosts=hosts)
    for router in routers:
        app.include_router(router)
    return app


def hosts(setting: str) -> list[str]:
    """Of the names with commas between them."""
    return [name for part in setting.split(",") if (name := part.strip())]


class Server(uvicorn.Server):
    """Serves in the tap's event loop until its task is cancelled or `should_exit` is set."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                lifespan="off",
                loop="none",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=1,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's."""
        yield
