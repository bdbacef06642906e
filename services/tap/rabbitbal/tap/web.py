"""The tap's HTTP server: what it knows, for people and programs. Only `docker-compose.yml`'s network `watch` reaches it."""

import contextlib
from collections.abc import Iterable, Iterator

import uvicorn
from fastapi import APIRouter, FastAPI


def build(routers: Iterable[APIRouter]) -> FastAPI:
    """The parts' own routers, under one application; OpenAPI at `/docs`."""
    app = FastAPI(title="Rabbitbal tap", redoc_url=None)
    for router in routers:
        app.include_router(router)
    return app


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
                timeout_graceful_shutdown=1,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's."""
        yield
