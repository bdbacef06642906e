"""The page itself: a few files, read once, served as they are."""

import mimetypes
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class _File:
    def __init__(self, path: Path) -> None:
        self.body = path.read_bytes()
        self.type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        self.tag = f'"{sha256(self.body).hexdigest()[:32]}"'

    def answer(self, request: Request) -> Response:
        # Asked for anew each time, and not sent anew: a new tap's page is never half an old one's.
        headers = {"ETag": self.tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.type, headers=headers)


def router() -> APIRouter:
    files = {path.name: _File(path) for path in sorted(STATIC.iterdir()) if path.suffix in _TYPES}
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def index(request: Request) -> Response:
        return files["index.html"].answer(request)

    @routes.get("/static/{name}")
    async def static(name: str, request: Request) -> Response:
        found = files.get(name)
        if found is None:
            raise HTTPException(404, "there is no such file")
        return found.answer(request)

    return routes
