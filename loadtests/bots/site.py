"""A small site to be crawled: pages, links, assets, a form, an API, a page that polls, and a robots.txt."""

import json
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

ARTICLES = 60
ITEMS = 300
ROBOTS = """\
User-agent: *
Disallow: /private/
Disallow: /cart
Disallow: /search
Crawl-delay: 5
"""
_CSS = "body{font:1rem/1.5 system-ui;max-width:50rem;margin:2rem auto}nav a{margin-right:1rem}"
_JS = "document.documentElement.dataset.ready='1'"
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><circle cx="4" cy="4" r="{}"/></svg>'
_POLL = "setInterval(()=>fetch('/api/status').then(r=>r.json()),1000)"


def _page(title: str, body: str, script: str = "") -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><title>{title}</title><link rel=stylesheet href=/static/site.css>'
        f"<link rel=icon href=/static/icon.svg><script src=/static/site.js defer></script><nav><a href=/>Home</a>"
        f"<a href=/articles>Articles</a><a href=/about>About</a><a href=/live>Live</a><a href=/cart>Cart</a></nav>"
        f'<img src=/static/logo.svg width=40 alt=""><h1>{title}</h1>{body}'
        f"<form action=/search><input name=q><button>Search</button></form><script>{script}</script></html>"
    )


def _article(number: int) -> Response:
    if not 1 <= number <= ARTICLES:
        return PlainTextResponse("no such article\n", 404)
    near = "".join(
        f'<li><a href="/articles/{(number + step) % ARTICLES + 1}">Next {step}</a>' for step in (0, 1, 6, 16)
    )
    picture = f'<img src="/static/picture-{number % 12}.svg" width=200 alt="">'
    return _page(
        f"Article {number}", f'{picture}<p>{"Words. " * 40}</p><ul>{near}</ul><a href="/private/{number}">Notes</a>'
    )


def respond(request: Request) -> Response:
    path = request.url.path
    head, _, last = path.rpartition("/")
    number = int(last) if last.isascii() and last.isdigit() and len(last) < 6 else 0
    if path == "/":
        links = "".join(f'<li><a href="/articles/{n}">Article {n}</a>' for n in range(1, 11))
        return _page("Home", f"<ul>{links}</ul>")
    if path == "/articles":
        links = "".join(f'<li><a href="/articles/{n}">Article {n}</a>' for n in range(1, ARTICLES + 1))
        return _page("Articles", f'<ul>{links}</ul><a href="/articles/old">Archive</a>')
    if head == "/articles":
        return _article(number)
    if path == "/about":
        return _page("About", "<p>A site for tests. <a href=/login>Log in</a></p>")
    if path == "/live":
        return _page("Live", "<p id=state>…</p>", _POLL)
    if path == "/login" and request.method == "POST":
        return RedirectResponse("/cart", 303)
    if path == "/login":
        return _page("Log in", "<form method=post action=/login><input name=user><button>Go</button></form>")
    if path in ("/cart", "/search"):
        return _page(path[1:].title(), f"<p>{len(str(request.query_params))} characters</p>")
    if head == "/private":
        return _page("Notes", "<p>Not for crawlers.</p>")
    if path == "/robots.txt":
        return PlainTextResponse(ROBOTS)
    if path == "/api/status":
        return JSONResponse({"ready": True})
    if path == "/api/items":
        page = int(request.query_params.get("page") or 1)
        return JSONResponse([{"id": n} for n in range(page * 20 - 19, page * 20 + 1)])
    if head == "/api/items" and 1 <= number <= ITEMS:
        return JSONResponse({"id": number, "name": f"Item {number}"})
    return _static(path)


def _static(path: str) -> Response:
    kept = {"Cache-Control": "max-age=300"}
    if path == "/static/site.css":
        return Response(_CSS, media_type="text/css", headers=kept)
    if path == "/static/site.js":
        return Response(_JS, media_type="text/javascript", headers=kept)
    if path.startswith("/static/") and path.endswith(".svg"):
        return Response(_SVG.format(1 + len(path) % 3), media_type="image/svg+xml", headers=kept)
    return PlainTextResponse("there is no such page\n", 404)


Tell = Callable[[Scope, int, str, bytes], None]


def site(tell: Tell) -> ASGIApp:
    """The ASGI application; it tells of each request and of what it answered: status, type, and a robots.txt's body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        try:
            response = respond(Request(scope))
        except ValueError:
            response = PlainTextResponse("bad\n", 400)
        body = bytes(response.body) if scope["path"] == "/robots.txt" else b""
        tell(scope, response.status_code, response.headers.get("content-type", ""), body)
        await response(scope, receive, send)

    return app


def line(scope: Scope, at: float, client: str, status: int, kind: str) -> str:
    """A request as a line of the log. Of most fields only that they were there."""
    valued = ("user-agent", "referer")
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    target = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    return json.dumps(
        {
            "t": round(at, 3),
            "c": client,
            "m": scope["method"],
            "p": target[:300],
            "s": status,
            "y": kind.partition(";")[0],
            "h": [name for name in ("accept", "accept-language", "accept-encoding") if name in headers],
            "a": headers.get(valued[0], ""),
            "r": "referer" in headers,
        },
        separators=(",", ":"),
    )
