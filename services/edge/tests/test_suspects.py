"""Whom the edge takes for a bot, and what becomes of their requests; on a real socket where it answers."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rabbitbal.edge import suspects as module
from rabbitbal.edge.broker import EdgeBroker
from rabbitbal.edge.suspects import Suspects
from rabbitbal.runtime.broker import Server
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.fields import Fields
from rabbitbal.wire.verdicts import Suspicion, Verdict, encode_verdict
from tests.edge_deployment import LIMITS, Deployment, deployed, said

TABLE = """\
version: 1
routes:
  - { name: strict, match: { path: /strict }, bots: refuse }
  - { name: default }
"""
SUSPECT = "203.0.113.66"


def verdict(client: str = SUSPECT, seconds: float = 60, kind: Suspicion = Suspicion.SUSPECT) -> bytes:
    now = int(time.time() * 1000)
    return encode_verdict(Verdict(client, kind, 0.9, ("asked for /.env",), now, now + int(seconds * 1000)))


def of(client: str) -> Fields:
    return [(b"Host", b"a"), (b"X-Forwarded-For", client.encode())]


def get(target: bytes, client: str, method: bytes = b"GET", more: bytes = b"") -> bytes:
    head = b"%s %s HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %s\r\n" % (method, target, client.encode())
    return head + more + b"\r\n"


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Deployment]:
    path = tmp_path / "routes.yaml"
    path.write_text(TABLE)
    async with deployed(replace(LIMITS, routes=path)) as deployment:
        yield deployment


# --- the table of suspects


def test_a_suspect_is_one_until_its_verdict_ends() -> None:
    """And not a moment longer, without anybody saying so."""
    now = [time.time()]
    known = Suspects(lambda: now[0])
    known.hear(verdict(seconds=60))
    assert 59 < (known.left(of(SUSPECT)) or 0) <= 60.1
    now[0] += 61
    assert known.left(of(SUSPECT)) is None
    assert len(known) == 0


def test_others_are_no_suspects() -> None:
    """Nor is a request that tells no client."""
    known = Suspects()
    known.hear(verdict())
    assert known.left(of("203.0.113.67")) is None
    assert known.left([(b"Host", b"a")]) is None
    assert known.left(of(f"{SUSPECT}, 10.0.0.1")) is not None


@pytest.mark.parametrize("kind", [Suspicion.HUMAN, Suspicion.CRAWLER])
def test_a_verdict_of_another_kind_ends_a_suspicion(kind: Suspicion) -> None:
    """And begins none."""
    known = Suspects()
    known.hear(verdict())
    known.hear(verdict(kind=kind))
    assert (known.left(of(SUSPECT)), len(known)) == (None, 0)


def test_what_is_no_verdict_changes_nothing() -> None:
    """It is logged, and no more."""
    known = Suspects()
    known.hear(verdict())
    for payload in (b"", b"{}", b"[]", b'{"client": 7}', b"\xff", b"[" * 5000):
        known.hear(payload)
    assert len(known) == 1


def test_no_verdict_holds_for_ever() -> None:
    """Whatever it says."""
    known = Suspects()
    known.hear(verdict(seconds=1e9))
    assert (known.left(of(SUSPECT)) or 0) <= module.LONGEST


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was told of for longest ago goes."""
    monkeypatch.setattr(module, "MOST", 2)
    known = Suspects()
    for client in ("::1", "::2", "::1", "::3"):
        known.hear(verdict(client))
    assert [known.left(of(client)) is not None for client in ("::1", "::2", "::3")] == [True, False, True]


# --- what they are answered


async def test_a_suspect_is_refused_where_the_route_says_so(edge: Deployment) -> None:
    """429 with the seconds until it may come again; no worker hears of it, and the tap does."""
    edge.suspects.hear(verdict(seconds=30))
    answer = await edge.ask(get(b"/strict/a", SUSPECT))
    assert said(answer) == (429, b"suspected-bot")
    assert 29 <= int(answer["retry-after"] or 0) <= 30
    assert edge.backend.requests == []
    (ended,) = edge.backend.ended
    assert (ended.reason, ended.status) == ("suspected-bot", 429)


async def test_a_suspect_is_served_on_other_routes(edge: Deployment) -> None:
    """The default is to allow."""
    edge.suspects.hear(verdict())
    assert (await edge.ask(get(b"/", SUSPECT))).status == 200


async def test_who_is_no_suspect_is_served_everywhere(edge: Deployment) -> None:
    """Also where suspects are refused."""
    edge.suspects.hear(verdict())
    assert (await edge.ask(get(b"/strict", "203.0.113.7"))).status == 200


async def test_an_old_verdict_refuses_nobody(edge: Deployment) -> None:
    """So without a tap nobody is refused before long."""
    edge.suspects.hear(verdict(seconds=-1))
    assert (await edge.ask(get(b"/strict", SUSPECT))).status == 200


async def test_a_suspect_is_refused_before_its_body_is_read(edge: Deployment) -> None:
    """It has promised more than it has sent, and is answered at once."""
    edge.suspects.hear(verdict())
    conversation = await edge.connect()
    answer = await conversation.ask(get(b"/strict", SUSPECT, b"POST", b"Content-Length: 900\r\n") + b"a")
    assert said(answer) == (429, b"suspected-bot")
    assert answer["connection"] == b"close"


async def test_a_client_that_nobody_vouches_for_cannot_blame_another(tmp_path: Path) -> None:
    """Its own X-Forwarded-For counts for nothing, neither to hide nor to accuse."""
    path = tmp_path / "routes.yaml"
    path.write_text(TABLE)
    async with deployed(replace(LIMITS, routes=path, trusted_proxies="192.0.2.0/24")) as edge:
        edge.suspects.hear(verdict("127.0.0.1"))
        assert said(await edge.ask(get(b"/strict", "203.0.113.7"))) == (429, b"suspected-bot")


# --- who may accuse


class Delivered:
    """A message that the broker has delivered."""

    def __init__(self, user: str | None, kind: Kind = Kind.VERDICT) -> None:
        self.user_id, self.body = user, verdict()
        self._envelope = Envelope(kind, "verdict", "tap-1")

    def envelope(self) -> Envelope:
        return self._envelope


@pytest.mark.parametrize(("user", "heard"), [("tap", 1), (None, 0), ("worker", 0), ("edge", 0), ("", 0)])
async def test_only_the_taps_own_user_may_accuse(user: str | None, heard: int) -> None:
    """The broker vouches for the user. A message that names none could be anybody's."""
    broker = EdgeBroker(Server("amqp://edge@127.0.0.1:1/", None), "edge-1")
    came: list[bytes] = []
    broker.verdict = came.append
    await broker._received(Delivered(user))  # type: ignore[arg-type]
    assert len(came) == heard
