"""A FastAPI application: sign in, upload, download, server-sent events, a WebSocket."""

import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import store
from fastapi import Depends, FastAPI, Form, HTTPException, Request, Response, UploadFile, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from fastapi.templating import Jinja2Templates
from starlette.middleware.sessions import SessionMiddleware

app = FastAPI()
# The cookie is the session, signed with this: any worker can read it.
app.add_middleware(SessionMiddleware, secret_key=os.environ["SECRET_KEY"], same_site="lax")
templates = Jinja2Templates(Path(__file__).parent / "templates")


def from_our_form(request: Request, csrf_token: Annotated[str, Form()] = "") -> None:
    """Every form carries a token that the session knows: no other site can send one."""
    if not secrets.compare_digest(csrf_token.encode(), request.session.get("csrf_token", "-").encode()):
        raise HTTPException(403, "this form is not of this site")


def page(request: Request, name: str, **values: object) -> Response:
    token = request.session.setdefault("csrf_token", secrets.token_urlsafe())
    notice = request.session.pop("notice", "")
    return templates.TemplateResponse(request, name, {"csrf_token": token, "notice": notice, **values})


@app.get("/")
async def index(request: Request) -> Response:
    if "user" not in request.session:
        return RedirectResponse("/login", 303)
    return page(request, "index.html", user=request.session["user"], names=store.names())


@app.get("/login")
async def login(request: Request) -> Response:
    return page(request, "login.html")


@app.post("/login", dependencies=[Depends(from_our_form)])
async def sign_in(request: Request, user: Annotated[str, Form()], password: Annotated[str, Form()]) -> Response:
    request.session.clear()
    if user != "demo" or not secrets.compare_digest(password.encode(), os.environ["DEMO_PASSWORD"].encode()):
        request.session["notice"] = "Wrong name or password"
        return RedirectResponse("/login", 303)
    request.session["user"] = user
    return RedirectResponse("/", 303)


@app.post("/logout", dependencies=[Depends(from_our_form)])
async def sign_out(request: Request) -> Response:
    request.session.clear()
    return RedirectResponse("/login", 303)


@app.post("/files", dependencies=[Depends(from_our_form)])
async def upload(request: Request, file: UploadFile) -> Response:
    if "user" not in request.session:
        raise HTTPException(403)
    saved = await run_in_threadpool(store.add, file.filename or "", file.file)
    request.session["notice"] = f"Saved {file.filename}" if saved else "That is no name for a file"
    return RedirectResponse("/", 303)


@app.get("/files/{name}")
async def download(name: str) -> FileResponse:
    if (path := store.find(name)) is None:
        raise HTTPException(404)
    return FileResponse(path, filename=name)


@app.get("/stream")
async def stream(names: str = "") -> StreamingResponse:
    """/stream?names=a,b: an event about each file, sent as soon as the file is there."""
    return StreamingResponse(_events(names.split(",")), media_type="text/event-stream")


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept(subprotocol="echo" if "echo" in socket.scope["subprotocols"] else None)
    while (message := await socket.receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await socket.send_text(message["text"])
        else:
            await socket.send_bytes(message["bytes"])


async def _events(names: list[str]) -> AsyncIterator[str]:
    for name in names:
        found = await store.arrives_async(name)
        text = await run_in_threadpool(store.line, name) if found else f"{name} did not come"
        yield f"data: {text}\n\n"
