"""A streamed answer that is compared, on a real socket: its digest is that of what the client got."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason
from tests.edge_deployment import GET, LIMITS, MIB, Deployment, deployed, until

TABLE = """\
version: 1
routes:
  - { name: mirrored, match: { path: /shadow }, mode: shadow, to: [north, south] }
  - { name: default }
"""
HEAD = Response(200, [(b"Content-Type", b"text/plain")], b"first")


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Deployment]:
    path = tmp_path / "routes.yaml"
    path.write_text(TABLE)
    async with deployed(replace(LIMITS, routes=path, buffer_limit=16 * MIB)) as deployment:
        deployment.backend.answer = lambda request: None
        yield deployment
        await until(lambda: not len(deployment.pending))
        assert deployment.pending._bytes == 0


def ended(edge: Deployment, leg: Leg | None) -> list[Envelope]:
    return [told for told in edge.backend.ended if told.kind is Kind.ENDED and told.leg is leg]


async def test_both_streams_have_their_digest(edge: Deployment) -> None:
    conversation = await edge.connect()
    conversation.send(GET.replace(b"/ ", b"/shadow "))
    await until(lambda: len(edge.backend.requests) == 2)
    for number, last in enumerate((b" and last", b" and least")):
        edge.backend.head(HEAD, number)
        edge.backend.piece(1, last, number, more=False)
    await conversation.head()
    assert await conversation.chunks() == b"first and last"
    await until(lambda: ended(edge, Leg.PRIMARY) and ended(edge, Leg.SHADOW))
    ((primary,), (shadow,)) = ended(edge, Leg.PRIMARY), ended(edge, Leg.SHADOW)
    assert (primary.size, primary.digest) == (14, hashlib.sha256(b"first and last").hexdigest())
    assert (shadow.size, shadow.digest) == (15, hashlib.sha256(b"first and least").hexdigest())
    assert primary.group == shadow.group


async def test_a_client_is_not_kept_by_a_shadow_that_never_ends(edge: Deployment) -> None:
    """Nor is its next request."""
    conversation = await edge.connect()
    conversation.send(GET.replace(b"/ ", b"/shadow "))
    await until(lambda: len(edge.backend.requests) == 2)
    edge.backend.head(HEAD, 1)
    edge.backend.head(HEAD, 0)
    edge.backend.piece(1, b"", 0, more=False)
    await conversation.head()
    assert await conversation.chunks() == b"first"
    edge.backend.answer = lambda request: Response(200, [], b"next")
    assert (await conversation.ask(GET)).body == b"next"
    edge.backend.piece(1, b"", 1, more=False, reason=Reason.APP_ERROR)


async def test_an_ordinary_stream_costs_no_digest(edge: Deployment) -> None:
    conversation = await edge.connect()
    conversation.send(GET)
    await until(lambda: len(edge.backend.requests) == 1)
    edge.backend.head(HEAD)
    edge.backend.piece(1, b"", more=False)
    await conversation.head()
    assert await conversation.chunks() == b"first"
    await until(lambda: ended(edge, None))
    assert [told.digest for told in ended(edge, None)] == [None]
