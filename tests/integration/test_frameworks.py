"""The applications of examples/, each behind two workers, used as a browser would: cookies, forms, files, streams."""

import hashlib
import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from html.parser import HTMLParser
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from integration.client import Address, Answer, Background, Call, get, send
from integration.deployment import Compose, Container, Deployment, Meanwhile
from integration.polling import eventually

MIB = 1 << 20
PATIENCE = 10.0
"""Seconds that a client waits for what must come: half of what the applications wait for a file."""


@dataclass(frozen=True)
class Framework:
    """``line`` is how its stream frames what it says; ``settings`` are the overlay's."""

    example: str
    token: str = "csrf_token"
    user: str = "user"
    refusal: int = 403
    line: str = "{}\n"
    settings: dict[str, str] = field(default_factory=dict)


FRAMEWORKS = {
    "rails": Framework("rails", token="authenticity_token", refusal=422),
    "django-asgi": Framework("django", token="csrfmiddlewaretoken", user="username"),
    "django-wsgi": Framework(
        "django",
        token="csrfmiddlewaretoken",
        user="username",
        settings={"RABBITBAL_APP": "files.entry:wsgi_application"},
    ),
    "flask": Framework("flask", refusal=400),
    "fastapi": Framework("fastapi", line="data: {}\n\n"),
}


class Examples(Deployment):
    """A deployment whose two workers become those of one example after another."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._served: set[str] = set()

    def serve(self, example: str, **settings: str) -> None:
        overlay = f"examples/{example}/compose.yml"
        self._served.add(overlay)
        self._compose = Compose((overlay,), self._env_file)
        self._compose.run("build", "--quiet", "worker")
        # Compose knows no EXAMPLE: the settings differ when the overlay does.
        settings |= {"EXAMPLE": example}
        if self in Deployment.running:
            self.change(**settings)
        else:
            self._settings = self._original | settings
            self._write_settings()
            self.up(workers=2)

    def down(self) -> None:
        # Only the volumes that its files declare are removed.
        self._compose = Compose(sorted(self._served), self._env_file)
        super().down()


@pytest.fixture(scope="module")
def deployment(directory: Path, images: None) -> Iterator[Examples]:
    deployment = Examples(directory)
    try:
        yield deployment
    finally:
        if deployment in Deployment.running:
            deployment.down()


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest, deployment: Examples) -> Framework:
    framework = FRAMEWORKS[request.param]
    deployment.serve(framework.example, **framework.settings)
    return framework


@pytest.fixture
def ready(deployment: Examples, framework: Framework) -> Examples:
    deployment.ready(workers=2)
    return deployment


@pytest.fixture
def browser(ready: Examples) -> "Browser":
    return Browser(ready.http)


@pytest.fixture
def static(deployment: Examples, site: Path) -> Examples:
    deployment.serve("static", SITE_DIR=str(site))
    deployment.ready(workers=2)
    return deployment


@pytest.fixture(scope="module")
def site(directory: Path) -> Path:
    """A directory of files."""
    site = directory / "static"
    (site / "below").mkdir(parents=True)
    (site / "below" / "index.html").write_text("a page\n")
    (site / "random").write_bytes(token_bytes(MIB + 1))
    # Workers read it as a user without rights.
    site.chmod(0o755)
    return site


# --- every framework


def test_a_session_goes_on_at_every_worker(browser: "Browser", framework: Framework) -> None:
    """Sign in at one worker, be known to both, sign out."""
    stranger = browser.get("/")
    assert stranger.redirect.startswith("/login")
    assert not sign_in(browser, framework, password="wrong").redirect.endswith("/")
    assert browser.get("/").redirect.startswith("/login")
    assert sign_in(browser, framework).redirect == "/"
    pages = at_both_workers(lambda: browser.get("/"))
    assert {page.status for page in pages} == {200}
    assert all("Signed in as demo" in page.text for page in pages)
    assert browser.submit(browser.get("/"), "/logout").redirect.startswith("/login")
    assert browser.get("/").redirect.startswith("/login")


def test_a_form_without_the_right_token_is_refused(browser: "Browser", framework: Framework) -> None:
    login = browser.get("/login")
    wrong = {framework.token: token_hex(32)}
    assert browser.submit(login, "/login", credentials(framework) | wrong).status == framework.refusal
    assert browser.get("/").redirect.startswith("/login")
    assert sign_in(browser, framework).redirect == "/"
    name = token_hex(8)
    assert browser.submit(browser.get("/"), "/files", wrong, file=(name, b"x")).status == framework.refusal
    assert browser.get(f"/files/{name}").status == 404


def test_a_file_comes_back_as_it_went(browser: "Browser", framework: Framework) -> None:
    """POST, redirect, GET; then the file from either worker, with its length and checksum."""
    sign_in(browser, framework)
    name, content = token_hex(8), token_bytes(MIB + 1)
    posted = browser.submit(browser.get("/"), "/files", file=(name, content))
    assert posted.status in (302, 303)
    assert f"Saved {name}" in browser.get(posted.redirect).text
    for page in at_both_workers(lambda: browser.get(f"/files/{name}")):
        assert page.status == 200
        assert page.headers["Content-Length"] == str(len(content))
        assert name in page.headers["Content-Disposition"]
        assert checksum(page.body) == checksum(content)


def test_a_stream_is_whole(browser: "Browser", framework: Framework) -> None:
    sign_in(browser, framework)
    files = {token_hex(8): token_bytes(100) for _ in range(20)}
    for name, content in files.items():
        browser.submit(browser.get("/"), "/files", file=(name, content))
    page = browser.get(f"/stream?names={','.join(files)}")
    assert page.status == 200
    assert page.text == "".join(framework.line.format(said(*file)) for file in files.items())


def test_a_stream_arrives_piece_by_piece(browser: "Browser", framework: Framework) -> None:
    """Each piece is there before the application can know the next one: it tells of a file sent only then."""
    sign_in(browser, framework)
    files = [(token_hex(8), token_bytes(100)) for _ in range(3)]
    browser.submit(browser.get("/"), "/files", file=files[0])
    with browser.open(f"/stream?names={','.join(name for name, _ in files)}") as response:
        for number, file in enumerate(files):
            expected = framework.line.format(said(*file))
            assert response.read(len(expected)).decode() == expected
            if number + 1 < len(files):
                assert browser.submit(browser.get("/"), "/files", file=files[number + 1]).status in (302, 303)
        assert response.read() == b""


# --- what one of them has


@pytest.mark.parametrize("framework", ["fastapi"], indirect=True)
def test_fastapi_speaks_websocket(ready: Examples) -> None:
    with websocket(ready.http, "/echo", "echo") as socket:
        assert socket.subprotocol == "echo"
        for message in ("text", "\N{SNOWMAN}", b"\x00\xff", token_bytes(100_000)):
            socket.send(message)
            assert socket.recv(PATIENCE) == message


@pytest.mark.parametrize("framework", ["rails"], indirect=True)
def test_rails_speaks_action_cable(browser: "Browser", framework: Framework, ready: Examples) -> None:
    """A channel of ActionCable, for whom the session's cookie says who it is."""
    with websocket(ready.http, "/cable", "actioncable-v1-json") as socket:
        assert heard(socket)["reason"] == "unauthorized"
    sign_in(browser, framework)
    with websocket(ready.http, "/cable", "actioncable-v1-json", Cookie=browser.cookies) as socket:
        assert socket.subprotocol == "actioncable-v1-json"
        assert heard(socket) == {"type": "welcome"}
        channel = json.dumps({"channel": "EchoChannel"})
        socket.send(json.dumps({"command": "subscribe", "identifier": channel}))
        assert heard(socket) == {"identifier": channel, "type": "confirm_subscription"}
        data = json.dumps({"action": "echo", "text": "\N{SNOWMAN}"})
        socket.send(json.dumps({"command": "message", "identifier": channel, "data": data}))
        assert heard(socket) == {"identifier": channel, "message": {"text": "\N{SNOWMAN}"}}


@pytest.mark.parametrize("framework", ["rails"], indirect=True)
def test_a_worker_beside_its_server_finishes_before_both_end(ready: Examples) -> None:
    """SIGTERM to the containers while one of them runs a request: puma stays for as long as the worker needs it."""
    name = token_hex(8)
    late = Background(ready.http, Call(f"/stream?names={name}"))
    eventually(lambda: ready.queues()["pool.default"]["messages_unacknowledged"], "a worker has the request")
    workers = ready.workers()
    stops = [Meanwhile(partial(ready.stop, worker)) for worker in workers]
    eventually(lambda: all(ready.events(worker, "worker.draining") for worker in workers), "the workers drain")
    (busy,) = eventually(lambda: running(ready, workers), "one worker has ended, the other not")
    ready.exec(busy, "sh", "-c", f"mkdir -p /data/files; : > /data/files/{name}")
    assert late.answer().status == 200
    assert late.answer().body.decode() == f"{said(name, b'')}\n"
    for stop in stops:
        stop.wait()
    assert [ready.look(worker).exit_code for worker in workers] == [0, 0]


# --- files without an application


def test_ranges_and_conditions_pass_through(static: Examples, site: Path) -> None:
    content = (site / "random").read_bytes()
    whole = get(static.http, "/random")
    assert (whole.status, checksum(whole.body)) == (200, checksum(content))
    etag, modified = whole.first("ETag") or "", whole.first("Last-Modified") or ""
    assert whole.first("Accept-Ranges") == "bytes"

    part = asked(static, Range="bytes=100-199")
    assert (part.status, part.body) == (206, content[100:200])
    assert part.first("Content-Range") == f"bytes 100-199/{len(content)}"
    assert asked(static, Range="bytes=-7").body == content[-7:]
    beyond = asked(static, Range=f"bytes={len(content)}-")
    assert (beyond.status, beyond.first("Content-Range")) == (416, f"bytes */{len(content)}")
    parts = asked(static, Range="bytes=0-0,-1")
    assert parts.status == 206
    assert (parts.first("Content-Type") or "").startswith("multipart/byteranges; boundary=")
    assert parts.body.count(b"Content-Range:") == 2
    assert asked(static, Range="bytes=0-9", If_Range=etag).status == 206
    assert asked(static, Range="bytes=0-9", If_Range='"another"').body == content

    for answer in (asked(static, If_None_Match=etag), asked(static, If_Modified_Since=modified)):
        assert (answer.status, answer.body, answer.first("ETag")) == (304, b"", etag)
    assert asked(static, If_None_Match='"another"').status == 200
    assert asked(static, If_Match='"another"').status == 412
    head = send(static.http, Call("/random", "HEAD"))
    assert (head.status, head.first("Content-Length"), head.body) == (200, str(len(content)), b"")


def test_a_directory_redirects_to_its_page(static: Examples) -> None:
    moved = get(static.http, "/below")
    assert (moved.status, moved.first("Location")) == (301, "/below/")
    assert get(static.http, "/below/").body == b"a page\n"
    assert get(static.http, "/nowhere").status == 404
    assert get(static.http, "/nowhere").reason is None


@pytest.mark.parametrize(
    "pid",
    ["cat /tmp/nginx.pid", "grep -lx python /proc/[0-9]*/comm | cut -d/ -f3"],
    ids=["server-killed", "worker-killed"],
)
def test_a_server_and_its_worker_end_together(static: Examples, pid: str) -> None:
    """Kill one of the two: the container ends and begins anew. The other container serves on."""
    victim, other = static.workers()
    static.exec(victim, "sh", "-c", f"kill -KILL $({pid})")
    eventually(lambda: static.look(victim).started_at != victim.started_at, "the container begins anew", 30)
    assert get(static.http, "/below/").body == b"a page\n"
    assert static.look(other).started_at == other.started_at
    eventually(lambda: static.consumers() == 2, "both serve", 30)


# --- means


@dataclass(frozen=True)
class Page:
    """What came for a request, redirects included."""

    url: str
    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def redirect(self) -> str:
        """Where to, without the host if it is the same; empty if it is no redirect."""
        if self.status not in (302, 303):
            return ""
        return re.sub(r"^http://[^/]+", "", urljoin(self.url, self.headers["Location"]))

    @property
    def worker(self) -> str | None:
        return self.headers["Rabbitbal-Worker"]


class Browser:
    """One cookie jar; fills in the forms of pages; follows no redirect by itself."""

    def __init__(self, address: Address) -> None:
        self._root = f"http://{address[0]}:{address[1]}"
        self._jar = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._jar), _Stay)

    @property
    def cookies(self) -> str:
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._jar)

    def open(self, target: str) -> HTTPResponse:
        """The response as it arrives."""
        response: HTTPResponse = self._opener.open(self._root + target, timeout=PATIENCE)
        return response

    def get(self, target: str) -> Page:
        return self._send(urllib.request.Request(self._root + target))

    def submit(
        self, page: Page, action: str, values: dict[str, str] | None = None, file: tuple[str, bytes] | None = None
    ) -> Page:
        """Send the page's form with this action, with these values beside, or over, those that it has."""
        forms = _Forms(page.url)
        forms.feed(page.text)
        filled = forms.found[self._root + action] | (values or {})
        request = urllib.request.Request(self._root + action, method="POST")
        if file is None:
            request.data = urlencode(filled).encode()
        else:
            boundary = token_hex(16)
            request.data = _multipart(filled, file, boundary)
            request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
        return self._send(request)

    def _send(self, request: urllib.request.Request) -> Page:
        try:
            response = self._opener.open(request, timeout=60)
        except HTTPError as error:
            response = error
        with response:
            return Page(request.full_url, response.status, response.headers, response.read())


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class _Forms(HTMLParser):
    """Forms by their absolute action: the names and values of their hidden fields."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.found: dict[str, dict[str, str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._fields = self.found.setdefault(urljoin(self._url, given.get("action") or ""), {})
        elif tag == "input" and given.get("type") == "hidden":
            self._fields[given["name"] or ""] = given["value"] or ""


def _multipart(fields: dict[str, str], file: tuple[str, bytes], boundary: str) -> bytes:
    """RFC 7578."""
    name, content = file
    parts = [(f'form-data; name="{key}"', value.encode()) for key, value in fields.items()]
    parts.append((f'form-data; name="file"; filename="{name}"\r\nContent-Type: application/octet-stream', content))
    encoded = (b"--%s\r\nContent-Disposition: %s\r\n\r\n%s\r\n" % (boundary.encode(), d.encode(), v) for d, v in parts)
    return b"".join([*encoded, b"--%s--\r\n" % boundary.encode()])


def credentials(framework: Framework, password: str = "demo") -> dict[str, str]:
    return {framework.user: "demo", "password": password}


def sign_in(browser: Browser, framework: Framework, password: str = "demo") -> Page:
    return browser.submit(browser.get("/login"), "/login", credentials(framework, password))


def at_both_workers(ask: Callable[[], Page]) -> list[Page]:
    """The pages until each of the two workers has made one."""
    pages: list[Page] = []

    def asked() -> bool:
        pages.append(ask())
        return len({page.worker for page in pages}) == 2

    eventually(asked, "both workers have answered", 30, 0)
    return pages


def said(name: str, content: bytes) -> str:
    """What the streams say of a file."""
    return f"{name} {len(content)} {checksum(content)}"


def checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def running(deployment: Deployment, containers: list[Container]) -> list[Container]:
    """Those of two that run while another does not; none while both do."""
    found = [container for container in containers if deployment.look(container).state == "running"]
    return found if len(found) == 1 else []


def asked(deployment: Deployment, **fields: str) -> Answer:
    named = tuple((name.replace("_", "-"), value) for name, value in fields.items())
    return send(deployment.http, Call("/random", fields=named))


def websocket(address: Address, path: str, subprotocol: str, **headers: str) -> ClientConnection:
    return connect(
        f"ws://{address[0]}:{address[1]}{path}",
        origin=Origin(f"http://{address[0]}:{address[1]}"),
        subprotocols=[Subprotocol(subprotocol)],
        additional_headers=headers,
        open_timeout=PATIENCE,
        max_size=MIB,
    )


def heard(socket: ClientConnection) -> dict[str, Any]:
    """The next message of ActionCable that is no ping."""
    while (message := json.loads(socket.recv(PATIENCE))).get("type") == "ping":
        pass
    found: dict[str, Any] = message
    return found
