"""The live page in a real browser, on a real tap: what it shows, how it is used, and what it never does."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from integration.client import Call, get, send
from integration.deployment import Deployment
from trial.browser import chromium

T = TypeVar("T")
PATIENCE = 30_000
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}

# Each text on the page and its contrast (WCAG 2.2, 1.4.3) with what it stands on; those that have too little are told.
CONTRAST = """
() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(c => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(node).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.nodeValue.trim() || !node.checkVisibility()) continue;
    if (node.closest("noscript, .skip, select")) continue;
    const style = getComputedStyle(node), ink = light(parse(style.color)), under = light(ground(node));
    const ratio = (Math.max(ink, under) + .05) / (Math.min(ink, under) + .05);
    const pixels = parseFloat(style.fontSize);
    const large = pixels >= 24 || (pixels >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${node.className} ${node.textContent.slice(0, 40)}`);
  }
  return found;
}
"""
VIOLATIONS = """
addEventListener("securitypolicyviolation", event => {
  (globalThis.violations ??= []).push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


@dataclass
class Seen:
    """What a page did that none should."""

    page: Page
    problems: list[str] = field(default_factory=list)

    def look(self, url: str) -> None:
        self.page.on("console", lambda message: self._said(message.type, message.text))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", lambda request: self._asked(request.url, url))
        self.page.add_init_script(VIOLATIONS)
        self.page.goto(url)

    def _said(self, kind: str, text: str) -> None:
        # The browser says itself when the tap is away.
        if kind in ("error", "warning") and "net::ERR_" not in text:
            self.problems.append(f"{kind}: {text}")

    def _asked(self, asked: str, own: str) -> None:
        if not asked.startswith((own, "data:")):
            self.problems.append(f"asked {asked}")

    def check(self) -> None:
        assert self.page.evaluate("globalThis.violations ?? []") == []
        assert self.problems == []


class Relay:
    """A port that stays when the engine gives the tap another one."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self._listener.accept()[:1], daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        # While the tap is away it has no port.
        with near, contextlib.suppress(OSError, LookupError), self._reach() as far:
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()

    def _reach(self) -> socket.socket:
        far = socket.create_connection(self._deployment.dashboard, 5)
        far.settimeout(None)
        return far

    def close(self) -> None:
        self._listener.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def apart(action: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """In a thread of its own: Playwright's event loop runs in this one, and the tests' client has another."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(action, *arguments, **named).result()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def deployment(shared: Deployment) -> Deployment:
    apart(shared.ready, workers=8)
    return shared


@pytest.fixture
def page(deployment: Deployment, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, live. Whatever the test does with it, nothing is asked of anybody else and no script complains."""
    options: dict[str, Any] = {"viewport": DESKTOP, **getattr(request, "param", {})}
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        seen = Seen(page)
        host, port = deployment.dashboard
        seen.look(f"http://{host}:{port}/")
        live(page)
        yield page
        seen.check()


def live(page: Page) -> None:
    expect(page.locator("html")).to_have_attribute("data-link", "live", timeout=PATIENCE)


def fetch(deployment: Deployment, number: int = 1, page: str = "/whoami") -> str:
    """Requests with a key in their targets."""
    key = uuid4().hex[:10]
    for _ in range(number):
        apart(get, deployment.http, f"{page}?key={key}", 10)
    return key


def row(page: Page, key: str) -> Any:
    return page.locator(".list .row", has_text=key).first


def test_requests_appear_as_they_end(deployment: Deployment, page: Page) -> None:
    """In the list, with status, pool and worker; in the figures, and in the endings."""
    key = fetch(deployment, 5)
    expect(row(page, key)).to_contain_text("200", timeout=PATIENCE)
    expect(row(page, key)).to_contain_text("default")
    expect(page.locator("#endings .barred", has_text="answered")).to_be_visible()
    expect(page.locator("#pools .slotted", has_text="default")).to_be_visible()
    expect(page.locator("[data-figure=rate]")).not_to_have_text("0", timeout=PATIENCE)
    expect(page.locator("[data-figure=p50]")).to_have_text(re.compile("[0-9]"), timeout=PATIENCE)


def test_workers_show_their_slots(deployment: Deployment, page: Page) -> None:
    """One bar for each worker, as the workers themselves tell."""
    expect(page.locator("#workers .slotted")).to_have_count(8, timeout=PATIENCE)
    expect(page.locator("#workers .slotted").first).to_contain_text("/4")


def test_a_story_opens_by_keyboard_and_has_an_address(deployment: Deployment, page: Page, browser: Browser) -> None:
    """Arrows move, Enter opens, Esc closes and the list has the focus again. The address leads others there."""
    key = fetch(deployment, page="/work")
    expect(row(page, key)).to_be_visible(timeout=PATIENCE)
    page.keyboard.press("ArrowDown")
    expect(page.locator(".row:focus")).to_have_count(1)
    page.keyboard.press("/")
    page.keyboard.type(key)
    expect(page.locator(".list li:visible")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    story = page.locator("#story")
    expect(story).to_contain_text(key)
    expect(story.locator(".lane .name").nth(1)).to_have_text("queue")
    expect(story.locator(".lane .name").nth(2)).to_contain_text("worker")
    expect(story.locator(".steps li")).to_have_count(2)
    assert "#request=" in page.url
    with browser.new_context() as other:
        shared = other.new_page()
        shared.goto(page.url)
        expect(shared.locator("#story")).to_contain_text(key)
    page.keyboard.press("Escape")
    expect(story).to_be_hidden()
    assert "#" not in page.url
    expect(page.locator(".row:focus")).to_have_count(1)


def test_keys_do_what_they_say(deployment: Deployment, page: Page) -> None:
    """`?` shows them, `p` pauses and goes on, `t` changes the theme, `/` leads to the filter and Esc out of it."""
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("p")
    expect(page.locator("html")).to_have_attribute("data-link", "paused")
    key = fetch(deployment)
    expect(page.locator("#sampled")).to_contain_text("newer", timeout=PATIENCE)
    expect(row(page, key)).to_have_count(0)
    page.keyboard.press("p")
    expect(row(page, key)).to_be_visible(timeout=PATIENCE)
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.keyboard.press("/")
    page.keyboard.type("nothing-has-this")
    expect(page.locator("#empty")).to_contain_text("Nothing among the newest")
    page.keyboard.press("Escape")
    expect(row(page, key)).to_be_visible()
    expect(page.locator("#filter")).to_have_value("")


def test_every_control_is_reached_by_tab_and_seen(page: Page) -> None:
    """In the order of the page, each with a visible focus."""
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]")
        )
    assert [name for name, _ in reached if name] == ["pause", "theme", "help", "filter", "status"]
    assert {style for name, style in reached if name} == {"solid"}


LAYOUTS = [
    {"viewport": DESKTOP, "color_scheme": "dark"},
    {"viewport": PHONE, "color_scheme": "light"},
    {"viewport": PHONE, "color_scheme": "dark"},
    {"viewport": {"width": 768, "height": 1024}, "reduced_motion": "reduce"},
]


@pytest.mark.parametrize("page", LAYOUTS, indirect=True, ids=["dark", "phone", "dark phone", "tablet"])
def test_nothing_is_wider_than_the_window_and_all_can_be_read(deployment: Deployment, page: Page) -> None:
    """With a long target in the list, and with its story open; the contrast is that of WCAG AA."""
    key = fetch(deployment, page="/echo/" + "long-" * 60)
    expect(page.locator(".list .row").first).to_be_visible(timeout=PATIENCE)
    narrow(page)
    assert page.evaluate(CONTRAST) == []
    page.locator("#filter").fill(key)
    row(page, "long-").click()
    expect(page.locator("#story .steps")).to_be_visible()
    narrow(page)
    assert page.evaluate(CONTRAST) == []


def narrow(page: Page) -> None:
    for part in ("html", "#story"):
        assert page.locator(part).evaluate("node => node.scrollWidth - node.clientWidth") <= 1


def test_hostile_text_is_shown_as_text(deployment: Deployment, page: Page) -> None:
    """Markup, quotes, bytes that are no UTF-8 and text that turns its direction do nothing in the list or the story."""
    key = uuid4().hex[:10]
    script, image = "<script>document.title='owned'</script>", "<img/src=x/onerror=document.title='owned'>"
    hostile = f"/echo?key={key}&{script}\"'>{image}%00%ff%e2%80%ae"
    # Bytes that are no UTF-8, and U+202E, which turns the direction of what follows.
    agent = ("User-Agent", "<svg onload=document.title='owned'>\xff\xe2\x80\xae")
    apart(send, deployment.http, Call(hostile, fields=(agent,)), 10)
    expect(row(page, key)).to_contain_text(script, timeout=PATIENCE)
    # The list holds still under the pointer.
    row(page, key).hover()
    row(page, key).click()
    story = page.locator("#story")
    expect(story).to_contain_text(image)
    expect(story).to_contain_text("\\u{202e}")
    expect(story).to_contain_text("<svg onload=document.title='owned'>")
    assert page.title() == "Rabbitbal"
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert page.evaluate("document.querySelectorAll('.list img, .list svg, #story img, #story svg').length") == 0


def test_a_tap_that_is_gone_is_said_and_found_again(deployment: Deployment, browser: Browser) -> None:
    """Stopped and frozen: since when, and that what is shown is from then. It comes back by itself."""
    relay = Relay(deployment)
    with browser.new_context(viewport=DESKTOP) as context:
        page = context.new_page()
        seen = Seen(page)
        seen.look(relay.url)
        live(page)
        tap = deployment.container("tap")
        for away, back in ((deployment.stop, deployment.start), (deployment.pause, deployment.unpause)):
            key = fetch(deployment)
            expect(row(page, key)).to_be_visible(timeout=PATIENCE)
            apart(away, tap)
            expect(page.locator("html")).to_have_attribute("data-link", "lost", timeout=PATIENCE)
            expect(page.locator("#link-text")).to_have_text(
                re.compile(r"Disconnected since \d\d:\d\d:\d\d.*The figures are from then"), timeout=PATIENCE
            )
            expect(row(page, key)).to_be_visible()
            expect(page.locator("main")).to_have_css("filter", "grayscale(1)")
            assert page.evaluate(CONTRAST) == []
            apart(back, tap)
            expect(page.locator("html")).to_have_attribute("data-link", "live", timeout=60_000)
        again = fetch(deployment)
        expect(row(page, again)).to_be_visible(timeout=PATIENCE)
        seen.check()
    relay.close()


def test_another_name_gets_no_page(deployment: Deployment) -> None:
    """What a foreign name leads to by DNS is refused, with a sentence that says what to do."""
    answer = apart(send, deployment.dashboard, Call("/api/live", fields=(("Host", "evil.example"),)), 10)
    assert (answer.status, b"RABBITBAL_DASHBOARD_HOSTS" in answer.body) == (421, True)
    assert answer.first("Content-Security-Policy")
    assert json.loads(apart(get, deployment.dashboard, "/api/live", 10).body)["connected"] is True
