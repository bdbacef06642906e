"""What the tap reads, as the scorer wants it: who asked for what, how, and what came of it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import structlog

from rabbitbal.tap.bots import probes
from rabbitbal.tap.bots.agents import LONGEST, poses
from rabbitbal.tap.bots.history import Count, History
from rabbitbal.tap.bots.robots import Robots
from rabbitbal.tap.bots.scorer import Scorer
from rabbitbal.tap.observation import Observation
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Leg
from rabbitbal.wire.fields import first
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.reasons import Reason
from rabbitbal.wire.verdicts import Verdict, client_in, client_of

log = structlog.get_logger()

# Seconds from one look at all that have done something to the next.
PERIOD = 1.0

# A client asks once, however many copies are made of it; the gathered answer of `all` brings its request along.
_NOT_ASKED = frozenset({Leg.HEDGE, Leg.SHADOW, Leg.ALL})
_NOT_ANSWERED = frozenset({Leg.SHADOW, Leg.ALL})
_SENT_BY_BROWSERS = (b"accept", b"accept-language", b"accept-encoding", b"user-agent")
_OF_PAGES = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ASSETS = (
    b".css", b".js", b".mjs", b".map", b".png", b".jpg", b".jpeg", b".gif", b".svg", b".webp", b".avif", b".ico",
    b".woff", b".woff2", b".ttf", b".mp4", b".webm", b".mp3", b".webmanifest",
)  # fmt: skip
_HTML = (b"text/html", b"application/xhtml+xml")
_ROBOTS = "/robots.txt"
_REPLAYERS = topology.replayer("")


class Watcher:
    """The tap's part that feeds the scorer. Of each request it counts a few things, and nothing more: who is a suspect
    is found out once a second, by `run`."""

    def __init__(self, scorer: Scorer, told: Callable[[Verdict], None] = lambda verdict: None) -> None:
        """``told`` hears of each new suspect."""
        self.scorer = scorer
        self._told = told
        self.robots = Robots()
        self._probes = probes.shipped()

    def see(self, seen: Observation) -> None:
        if seen.redelivered:
            # It may have been counted, and to be accused twice for one request is worse than not at all.
            return
        envelope, line = seen.envelope, seen.line
        if _is_replay(envelope.app_id) or (line is not None and _is_replay(line.get("edge") or "")):
            # An operator asks again what clients asked once.
            return
        # When it was sent, not when it was read: a tap that was away reads an hour in a second.
        at = seen.at if envelope.sent is None else min(envelope.sent / 1000, seen.at)
        if seen.request is not None and envelope.attempt == 1 and envelope.leg not in _NOT_ASKED:
            client = client_of(seen.request.fields)
            if client is not None:
                history = self.scorer.history(client, at)
                # Of several copies that are as good as each other, the first.
                if envelope.leg is not Leg.FIRST or history.group != envelope.group:
                    history.group = envelope.group
                    self._asked(history, seen.request, at)
        if line is not None and not line.get("unmatched") and line.get("leg") not in _NOT_ANSWERED:
            self._answered(line, seen.response)

    async def run(self) -> None:
        """Look for suspects until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            try:
                self._judge()
            except Exception:
                # A defect here must not end the log and the books.
                log.exception("tap.defect", part=type(self).__name__)

    def _judge(self) -> None:
        for verdict in self.scorer.judge(time.time()):
            log.info("tap.suspect", client=verdict.client, score=verdict.score, reasons=list(verdict.reasons))
            self._told(verdict)

    def _asked(self, history: History, request: Request, at: float) -> None:
        fields = {name.lower() for name, _ in request.fields}
        agent = (first(request.fields, b"user-agent") or b"")[:LONGEST].decode("latin-1")
        path = request.target.partition(b"?")[0]
        history.agent = agent
        history.add(Count.REQUESTS)
        lacking = sum(name not in fields for name in _SENT_BY_BROWSERS)
        if lacking:
            history.add(Count.LACKING, lacking)
        bare, browser = b"accept-language" not in fields, poses(agent)
        if browser and (bare or b"accept-encoding" not in fields):
            history.add(Count.POSING)
        if request.method not in _OF_PAGES:
            history.add(Count.ODD)
        if not path.lower().endswith(_ASSETS):
            history.add(Count.PAGES)
            history.visit(path)
        target = request.target.decode("latin-1")
        if self._probes.attacks(target):
            history.add(Count.ATTACKS)
        # People may go where crawlers may not. Who is no browser by his word, lacks what browsers send, or has read the
        # rules, is no person.
        if bare or not browser or at - history.read_robots <= self.scorer.window:
            self._obeys(history, request, agent, path.decode("latin-1"))

    def _obeys(self, history: History, request: Request, agent: str, path: str) -> None:
        host = (first(request.fields, b"host") or b"").decode("latin-1")
        if not self.robots.allow(host, agent, path):
            history.add(Count.DISALLOWED)
            # What is behind a semicolon may be a session's secret (`;jsessionid=`).
            history.forbidden = probes.shown(path.partition(";")[0])

    def _answered(self, line: dict[str, Any], response: Response | None) -> None:
        history = self.scorer.known(client_in(line.get("client")) or "")
        if history is None:
            return
        status, reason, target = line.get("status"), line.get("reason"), line.get("target") or ""
        path = _path(target)
        if reason is None and isinstance(status, int):
            history.add(Count.ANSWERS)
            if status >= 400:
                history.add(Count.ERRORS)
            if line.get("method") == "GET":
                self._page(history, line, response, path, status)
        # What the application has is no guess. Of whom is refused, nobody knows.
        missed = reason is None and isinstance(status, int) and 400 <= status < 500
        if (missed or reason == Reason.SUSPECTED_BOT) and self._probes.guesses(path):
            history.add(Count.GUESSES)
            history.example = probes.shown(path)

    def _page(self, history: History, line: dict[str, Any], response: Response | None, path: str, status: int) -> None:
        if path == _ROBOTS:
            history.read_robots = history.newest
            if response is not None:
                self.robots.learn(line.get("host") or "", status, response.body)
        elif status >= 400:
            return
        elif path.lower().encode().endswith(_ASSETS):
            history.add(Count.ASSETS)
        elif response is not None and (first(response.fields, b"content-type") or b"").lower().startswith(_HTML):
            history.add(Count.HTML)
            if not line.get("referer"):
                history.add(Count.UNLINKED)


def _is_replay(edge: str) -> bool:
    return edge.startswith(_REPLAYERS)


def _path(target: str) -> str:
    try:
        return urlsplit(target).path if not target.startswith("//") else target.partition("?")[0]
    except ValueError:
        return target.partition("?")[0]
