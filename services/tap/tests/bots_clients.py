"""Requests and answers of clients, as the tap reads them. Use: ``from tests.bots_clients import Clients``."""

from itertools import count

from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.bots.scorer import Scorer
from rabbitbal.tap.bots.watcher import Watcher
from rabbitbal.tap.observation import Observation
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.reasons import Reason
from rabbitbal.wire.verdicts import Verdict

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
SIGNED = "Mozilla/5.0 (compatible; ExampleBot/1.0; +https://example.com/bot.html)"
BROWSER = {"User-Agent": CHROME, "Accept": "*/*", "Accept-Language": "en", "Accept-Encoding": "gzip"}
T = 1_767_225_600.0


class Clients:
    """A watcher with a scorer, and a clock that the test moves."""

    def __init__(
        self, limit: int = 1000, window: float = 120, threshold: float = 0.6, lasting: float = 300, trusted: str = ""
    ) -> None:
        self.scorer = Scorer(limit, window, threshold, lasting, lambda client: client == trusted)
        self.watcher = Watcher(self.scorer)
        self._access = AccessLog(1000, Redactor())
        self._ids = count()
        self.now = T

    def ask(
        self,
        target: str = "/",
        client: str = "203.0.113.1",
        *,
        method: str = "GET",
        status: int = 200,
        kind: str = "text/html",
        body: bytes = b"",
        fields: dict[str, str] | None = None,
        reason: Reason | None = None,
        leg: Leg | None = None,
        group: str | None = None,
        attempt: int = 1,
        redelivered: bool = False,
        edge: str = "edge-1",
    ) -> None:
        """One request and its ending. ``fields`` are a browser's unless they are given."""
        name, sent = str(next(self._ids)), int(self.now * 1000)
        sends = BROWSER if fields is None else fields
        all_fields = [(b"Host", b"shop.test"), (b"X-Forwarded-For", client.encode())]
        all_fields += [(field.encode(), value.encode()) for field, value in sends.items()]
        request = Request(method, target.encode(), all_fields)
        asked = Envelope(Kind.REQUEST, name, edge, sent=sent, route="default", leg=leg, group=group, attempt=attempt)
        self.see(Observation(self.now, asked, b"", redelivered=redelivered, request=request))
        if reason is not None:
            ended = Envelope(Kind.ENDED, name, edge, sent=sent, status=429, reason=reason, leg=leg, group=group)
            self.see(Observation(self.now, ended, b"", redelivered=redelivered))
            return
        response = Response(status, [(b"Content-Type", kind.encode())], body)
        answered = Envelope(Kind.RESPONSE, name, "worker-1", sent=sent, duration=1000)
        self.see(Observation(self.now, answered, b"", redelivered=redelivered, response=response))

    def see(self, seen: Observation) -> None:
        seen.line = self._access.see(seen)
        self.watcher.see(seen)

    def judge(self) -> list[Verdict]:
        return self.scorer.judge(self.now)

    def signals(self, client: str = "203.0.113.1") -> dict[str, float]:
        """What each signal adds."""
        judged = self.scorer.look(client)
        return {} if judged is None else {found.signal: found.part for found in judged.findings}

    def scan(self, client: str = "203.0.113.1") -> None:
        """What makes a suspect of anybody."""
        for path in ("/.env", "/wp-login.php", "/.git/config", "/phpmyadmin/"):
            self.ask(path, client, status=404, fields={})
