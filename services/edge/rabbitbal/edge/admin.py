"""The edge's own endpoints, under one reserved prefix. nginx does not pass them on to the outside."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from rabbitbal.edge.copies import Copies
from rabbitbal.edge.pending import Pending
from rabbitbal.edge.settings import Settings
from rabbitbal.routes.watch import RoutesFile
from rabbitbal.runtime.settings import public


def build(
    edge: str, settings: Settings, pending: Pending, routes: RoutesFile, copies: Copies, ready: Callable[[], bool]
) -> FastAPI:
    """`live`, `ready`, `settings`, `routes` and `stats`; OpenAPI at `docs`."""
    prefix = "/_rabbitbal"
    app = FastAPI(
        title="Rabbitbal edge", docs_url=f"{prefix}/docs", redoc_url=None, openapi_url=f"{prefix}/openapi.json"
    )

    @app.get(f"{prefix}/live")
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"edge": edge}

    @app.get(f"{prefix}/ready")
    async def is_ready() -> JSONResponse:
        """200 when a request would be carried now, else 503."""
        up = ready()
        return JSONResponse({"ready": up, "edge": edge}, status_code=200 if up else 503)

    @app.get(f"{prefix}/settings")
    async def show_settings() -> dict[str, Any]:
        """The settings in force, without secrets."""
        return public(settings)

    @app.get(f"{prefix}/routes")
    async def show_routes() -> dict[str, Any]:
        """The table in force, where it came from, and what is wrong with a newer one that was refused."""
        return {"edge": edge, **routes.state()}

    @app.get(f"{prefix}/stats")
    async def stats() -> dict[str, Any]:
        """Requests in flight, endings by reason since the start, the moving average of the wait in the queue, and what
        was done with copies."""
        return {
            "edge": edge,
            "pending": len(pending),
            "endings": pending.endings,
            "queue_wait_seconds": round(pending.wait.seconds, 4),
            "copies": copies.stats(),
        }

    return app
