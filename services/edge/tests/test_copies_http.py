"""Routes to several keys on a real socket: what the client gets of the copies' answers. Which one counts, and what
becomes of the others, is in the tests of `edge/copies`."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.fields import values
from rabbitbal.wire.message import Response
from rabbitbal.wire.reasons import Reason
from tests.edge_deployment import GET, LIMITS, MIB, Conversation, Deployment, deployed, said, until

TABLE = """\
version: 1
routes:
  - { name: race, match: { path: /first }, mode: first, to: [north, south] }
  - { name: every, match: { path: /all }, mode: all, to: [north, south] }
  - { name: mirrored, match: { path: /shadow }, mode: shadow, to: [north, south] }
  - { name: default }
"""
DATA = bytes(range(256)) * 2048


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Deployment]:
    path = tmp_path / "routes.yaml"
    path.write_text(TABLE)
    settings = replace(LIMITS, routes=path, expose_worker=True, body_limit=2 * MIB, buffer_limit=16 * MIB)
    async with deployed(settings) as deployment:
        deployment.backend.answer = lambda request: None
        yield deployment
        await until(lambda: not len(deployment.pending))
        assert deployment.pending._bytes == 0
        assert deployment.app._intake._spools._left == settings.spool_total


async def asked(edge: Deployment, target: bytes) -> Conversation:
    """A client whose request went to both keys."""
    conversation = await edge.connect()
    conversation.send(GET.replace(b"/ ", target + b" "))
    await until(lambda: len(edge.backend.requests) == 2)
    assert edge.backend.keys == ["request.north", "request.south"]
    return conversation


async def test_the_first_answer_is_the_clients(edge: Deployment) -> None:
    """And the connection goes on."""
    conversation = await asked(edge, b"/first")
    edge.backend.reply(1, Response(200, [], b"south"))
    answer = await conversation.answer()
    assert (answer.status, answer.body, answer["rabbitbal-route"]) == (200, b"south", b"race")
    await until(lambda: not len(edge.pending))
    edge.backend.answer = lambda request: Response(200, [], b"next")
    assert (await conversation.ask(GET)).body == b"next"


async def test_a_large_body_reaches_every_copy(edge: Deployment) -> None:
    """Read once, kept once, whole for each."""
    conversation = await edge.connect()
    conversation.send(b"PUT /first HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(DATA) + DATA)
    await until(lambda: len(edge.backend.requests) == 2)
    for number in (0, 1):
        edge.backend.claim(number=number)
    ids = [envelope.correlation_id for envelope in edge.backend.envelopes]

    def got(number: int) -> bytes:
        pieces = [body for envelope, body in edge.backend.told(Kind.BODY) if envelope.correlation_id == ids[number]]
        return b"".join([edge.backend.requests[number].body, *pieces])

    await until(lambda: got(0) == got(1) == DATA)
    assert edge.app._intake._settings.spool_total - edge.app._intake._spools._left <= len(DATA)
    edge.backend.reply(0, Response(200, [], b"done"))
    assert (await conversation.answer()).body == b"done"


async def test_all_answers_come_together_and_say_who_failed(edge: Deployment) -> None:
    """`Rabbitbal-Failed` is ours alone; an application that sends it is not believed."""
    conversation = await asked(edge, b"/all")
    edge.backend.reply(0, Response(201, [(b"Rabbitbal-Failed", b"forged")], b"north"))
    edge.backend.reply(1, Response(500), Reason.APP_ERROR)
    answer = await conversation.answer()
    assert said(answer) == (200, None)
    assert list(values(answer.fields, b"rabbitbal-failed")) == [b"south"]
    assert answer["rabbitbal-route"] == b"every"
    assert re.match(rb"multipart/mixed; *boundary=", answer["content-type"] or b"")
    assert re.findall(rb"HTTP/1\.1 (\d+) ", answer.body) == [b"201", b"500"]
    assert b"forged" not in (answer["rabbitbal-failed"] or b"")


async def test_where_nobody_answered_all_there_is_one_error(edge: Deployment) -> None:
    """That of the first key."""
    conversation = await asked(edge, b"/all")
    for number in (0, 1):
        edge.backend.reply(number, Response(500), Reason.APP_ERROR)
    assert said(await conversation.answer()) == (500, b"app-error")


async def test_a_shadow_changes_nothing_for_the_client(edge: Deployment) -> None:
    """Its answer is the primary's, whether the other comes or not."""
    conversation = await asked(edge, b"/shadow")
    edge.backend.reply(0, Response(200, [], b"north"))
    assert (await conversation.answer()).body == b"north"
    edge.backend.reply(1, Response(500, [], b"south"))
    edge.backend.answer = lambda request: Response(200, [], b"next")
    assert (await conversation.ask(GET)).body == b"next"


@pytest.mark.parametrize("target", [b"/first", b"/all", b"/shadow"])
async def test_a_client_that_hangs_up_leaves_no_copy_behind(edge: Deployment, target: bytes) -> None:
    """Each is cancelled, but a shadow is nobody's."""
    conversation = await asked(edge, target)
    conversation.hang_up()
    if target == b"/shadow":
        await until(lambda: len(edge.pending) == 1)
        edge.backend.reply(1, Response(200))
    await until(lambda: not len(edge.pending))
    assert edge.pending.endings.get("client-gone") == (1 if target == b"/shadow" else 2)
