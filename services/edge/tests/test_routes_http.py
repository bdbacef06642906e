"""Routes on a real socket: which key and which policy a request gets, and what is refused by them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from rabbitbal.routes import watch
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.fields import values
from rabbitbal.wire.message import Response
from tests.edge_deployment import GET, LIMITS, Deployment, deployed, replace_file, said, until

SETTINGS = replace(LIMITS, expose_worker=True)

TABLE = """\
version: 1
routes:
  - { name: tenants, match: { host: "*.tenants.test" }, to: north.tenants }
  - { name: secure, match: { headers: { X-Forwarded-Proto: https } }, to: north }
  - { name: bots, match: { headers: { User-Agent: { regex: "(?i)bot" } } }, to: south }
  - { name: writes, match: { path: /things, method: [POST, PUT] }, to: south }
  - { name: things, match: { path: /things } }
  - { name: numbers, match: { path_regex: "^/[0-9]+$" }, to: numbers }
  - { name: topics, match: { path: /topics }, to: { path: 2 } }
  - { name: default }
"""


class Serve(Protocol):
    """An edge with this table."""

    def __call__(self, table: str, **settings: Any) -> AbstractAsyncContextManager[Deployment]: ...


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    def with_table(table: str, **settings: Any) -> AbstractAsyncContextManager[Deployment]:
        path = tmp_path / "routes.yaml"
        path.write_text(table)
        return deployed(replace(SETTINGS, routes=path, **settings))

    return with_table


@pytest.fixture
async def edge(serve: Serve) -> AsyncIterator[Deployment]:
    async with serve(TABLE) as deployment:
        yield deployment


def get(target: bytes = b"/", *fields: bytes, method: bytes = b"GET", host: bytes = b"a") -> bytes:
    lines = [b"%s %s HTTP/1.1" % (method, target), b"Host: " + host, *fields]
    return b"\r\n".join([*lines, b"", b""])


@pytest.mark.parametrize(
    ("request_bytes", "route", "key"),
    [
        (get(), "default", "default"),
        (get(host=b"a.b.tenants.test"), "tenants", "north.tenants"),
        (get(host=b"A.Tenants.TEST:8080"), "tenants", "north.tenants"),
        (get(host=b"tenants.test"), "default", "default"),
        (get(b"http://a.tenants.test/", host=b"false"), "tenants", "north.tenants"),
        (get(b"/", b"User-Agent: SomeBot/1.0"), "bots", "south"),
        (get(b"/things"), "things", "things"),
        (get(b"/things/1?a=b"), "things", "things"),
        (get(b"/things/1", b"Content-Length: 0", method=b"POST"), "writes", "south"),
        (get(b"/thingsandmore"), "default", "default"),
        (get(b"/x/../things"), "things", "things"),
        (get(b"/12345"), "numbers", "numbers"),
        (get(b"/12345x"), "default", "default"),
        (get(b"/topics/reports/12"), "topics", "topics.reports"),
        (get(b"/", b"X-Forwarded-Proto: https"), "secure", "north"),
    ],
)
async def test_a_request_gets_the_key_of_its_route(
    edge: Deployment, request_bytes: bytes, route: str, key: str
) -> None:
    """By host, header, path, method, pattern; the first that matches."""
    answer = await edge.ask(request_bytes)
    assert (answer.status, answer["rabbitbal-route"]) == (200, route.encode())
    assert [(route, f"request.{key}")] == [
        (envelope.route, sent) for envelope, sent in zip(edge.backend.envelopes, edge.backend.keys, strict=True)
    ]


async def test_without_a_file_there_is_one_route() -> None:
    """To the pool that is always there."""
    async with deployed(SETTINGS) as edge:
        answer = await edge.ask(get(b"/anything"))
        assert answer["rabbitbal-route"] == b"default"
        assert edge.backend.keys == ["request.default"]


async def test_a_route_is_not_found_by_what_the_application_does_not_see(serve: Serve) -> None:
    """What a stranger forged, or names in `Connection`, chooses no pool."""
    async with serve(TABLE, trusted_proxies="192.0.2.0/24") as edge:
        forged = await edge.ask(get(b"/", b"X-Forwarded-Proto: https"))
        hidden = await edge.ask(get(b"/", b"User-Agent: bot", b"Connection: User-Agent"))
    assert [forged["rabbitbal-route"], hidden["rabbitbal-route"]] == [b"default", b"default"]


@pytest.mark.parametrize(
    "target", [b"/%", b"/%00", b"/\x7f", b"/%ff%fe", b"//", b"/?", b"/" + b"../" * 60, b"/a//..//"]
)
async def test_no_target_breaks_the_table(edge: Deployment, target: bytes) -> None:
    """Each goes somewhere or is refused as bad; the edge has no defect."""
    for prefix in (b"", b"/topics", b"/things"):
        answer = await edge.ask(get(prefix + target))
        assert said(answer) in ((200, None), (400, b"bad-request"))


async def test_names_that_a_worker_gives_are_values_and_no_more(edge: Deployment) -> None:
    """A pool's name with a line break in it adds no field."""
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(get())
    await until(lambda: edge.backend.requests)
    edge.backend._say(Kind.RESPONSE, 0, b"HTTP/1.1 200 OK\r\n\r\n", pool="a\r\nX-Evil: 1\r\n", duration=1)
    answer = await conversation.answer()
    assert (answer["rabbitbal-pool"], answer["x-evil"]) == (b"a??X-Evil:?1??", None)


# --- policies


async def test_a_timeout_is_that_of_the_route(serve: Serve) -> None:
    """Of this route alone."""
    table = "version: 1\nroutes: [{ name: hasty, match: { path: /hasty }, timeout: 100ms }, { name: default }]\n"
    async with serve(table) as edge:
        edge.backend.answer = lambda request: None if request.target == b"/hasty" else Response(200)
        assert said(await edge.ask(get(b"/hasty"))) == (504, b"queue-timeout")
        assert (await edge.ask(get())).status == 200
        hasty, other = edge.backend.envelopes
        assert (hasty.expiration or 0) <= 100
        assert 19_000 < (other.expiration or 0) <= 20_000


async def test_a_limit_of_the_body_is_the_smaller_of_two(serve: Serve) -> None:
    """The route's and the edge's; of a declared length and of one that shows; nothing is read first."""
    table = (
        "version: 1\nroutes: [{ name: small, match: { path: /small }, body_limit: 10 },"
        " { name: large, match: { path: /large }, body_limit: 1MiB }, { name: default }]\n"
    )
    post, chunked = b"Content-Length: %d", b"Transfer-Encoding: chunked"
    async with serve(table) as edge:
        for target, limit in ((b"/small", 10), (b"/large", 1000), (b"/", 1000)):
            data = get(target, post % limit, method=b"POST") + b"a" * limit
            assert (await edge.ask(data)).status == 200
            conversation = await edge.connect()
            head = get(target, post % (limit + 1), b"Expect: 100-continue", method=b"POST")
            assert said(await conversation.ask(head)) == (413, b"body-too-large")
            assert await conversation.at_end()
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (limit + 1, b"a" * (limit + 1))
            assert said(await edge.ask(get(target, chunked, method=b"POST") + body)) == (413, b"body-too-large")
        assert len(edge.backend.requests) == 3


async def test_a_limit_of_zero_takes_no_body(serve: Serve) -> None:
    """It is a limit, not the lack of one."""
    async with serve("version: 1\nroutes: [{ name: default, body_limit: 0 }]\n") as edge:
        assert (await edge.ask(get())).status == 200
        assert said(await edge.ask(get(b"/", b"Content-Length: 1", method=b"POST") + b"a")) == (413, b"body-too-large")


async def test_an_upload_that_outgrows_the_limit_of_its_route_ends(serve: Serve) -> None:
    """While it comes in, behind its head."""
    table = "version: 1\nroutes: [{ name: default, body_limit: 100KiB }]\n"
    async with serve(table, body_limit=1 << 20, buffer_limit=8 << 20) as edge:
        edge.backend.answer = lambda request: None
        conversation = await edge.connect()
        part = b"%x\r\n%s\r\n" % (70_000, b"a" * 70_000)
        conversation.send(get(b"/", b"Transfer-Encoding: chunked", method=b"PUT") + part)
        await until(lambda: edge.backend.requests)
        edge.backend.claim()
        await until(lambda: len(edge.backend.requests[0].body + edge.backend.uploaded) == 70_000)
        conversation.send(part)
        assert said(await conversation.answer()) == (413, b"body-too-large")


@pytest.mark.parametrize(
    ("redeliver", "method", "extra", "repeatable"),
    [
        ("auto", b"GET", (), True),
        ("auto", b"POST", (), False),
        ("auto", b"POST", (b"Idempotency-Key: 1",), True),
        ("always", b"GET", (), True),
        ("always", b"POST", (), True),
        ("never", b"GET", (), False),
        ("never", b"POST", (b"Idempotency-Key: 1",), False),
    ],
)
async def test_a_route_says_whether_its_requests_may_run_twice(
    serve: Serve, redeliver: str, method: bytes, extra: tuple[bytes, ...], repeatable: bool
) -> None:
    """Its worker is lost: the request is published again, or its client hears it."""
    async with serve(f"version: 1\nroutes: [{{ name: default, redeliver: {redeliver} }}]\n") as edge:
        edge.backend.answer = lambda request: None if len(edge.backend.requests) == 1 else Response(200)
        conversation = await edge.connect()
        conversation.send(get(b"/", *extra, method=method))
        await until(lambda: edge.backend.requests)
        assert [envelope.repeatable for envelope in edge.backend.envelopes] == [repeatable]
        edge.backend._say(Kind.REDELIVERED, 0, b"")
        assert said(await conversation.answer()) == ((200, None) if repeatable else (502, b"worker-lost"))
        assert len(edge.backend.requests) == 1 + repeatable


async def test_delivery_is_that_of_the_route(serve: Serve) -> None:
    """Persistent or not."""
    table = "version: 1\nroutes: [{ name: kept, match: { path: /kept }, delivery: persistent }, { name: default }]\n"
    async with serve(table) as edge:
        for target in (b"/kept", b"/"):
            await edge.ask(get(target))
        assert [envelope.persistent for envelope in edge.backend.envelopes] == [True, False]


async def test_an_upgrade_goes_to_the_first_key_only(serve: Serve) -> None:
    """A tunnel has two ends."""
    table = "version: 1\nroutes: [{ name: default, mode: first, to: [north, south] }]\n"
    async with serve(table) as edge:
        conversation = await edge.connect()
        edge.backend.answer = lambda request: None
        conversation.send(get(b"/", b"Connection: Upgrade", b"Upgrade: websocket"))
        await until(lambda: edge.backend.requests)
        edge.backend.claim()
        edge.backend.reply(0, Response(403))
        assert (await conversation.answer()).status == 403
        assert edge.backend.keys == ["request.north"]


# --- refusals


async def test_what_is_no_request_finds_no_route(edge: Deployment) -> None:
    """And says none."""
    answer = await edge.ask(b"GET / HTTP/1.1\r\nHost: a.tenants.test\r\nHost: b\r\n\r\n")
    assert (said(answer), answer["rabbitbal-route"]) == ((400, b"bad-request"), None)


async def test_an_error_of_ours_says_its_route(edge: Deployment) -> None:
    """To those who look for it."""
    edge.pending._max_pending = 0
    answer = await edge.ask(get(b"/things"))
    assert (said(answer), answer["rabbitbal-route"], answer["rabbitbal-pool"]) == (
        (503, b"overloaded"),
        b"things",
        None,
    )


async def test_nothing_is_shown_unasked(serve: Serve) -> None:
    """`RABBITBAL_EXPOSE_WORKER`."""
    async with serve(TABLE, expose_worker=False) as edge:
        answer = await edge.ask(get())
        assert (answer["rabbitbal-route"], answer["rabbitbal-pool"], list(values(answer.fields, b"set-cookie"))) == (
            None,
            None,
            [],
        )


# --- a new table


async def routes(edge: Deployment) -> dict[str, object]:
    found: dict[str, object] = json.loads((await edge.ask(GET.replace(b"/ ", b"/_rabbitbal/routes "))).body)
    return found


async def test_a_new_table_counts_for_the_requests_after_it(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is on its way stays with the old one, also in what its answer says."""
    monkeypatch.setattr(watch, "PERIOD", 0.01)
    async with serve(TABLE) as edge:
        watching = asyncio.ensure_future(edge.routes.run())
        edge.backend.answer = lambda request: None
        before = edge.routes.table
        conversation = await edge.connect()
        conversation.send(get(b"/things"))
        await until(lambda: edge.backend.requests)
        replace_file(tmp_path / "routes.yaml", TABLE.replace("name: things", "name: stuff"))
        await until(lambda: edge.routes.table is not before)
        edge.backend.reply(0, Response(200))
        assert (await conversation.answer())["rabbitbal-route"] == b"things"
        edge.backend.answer = lambda request: Response(200)
        assert (await conversation.ask(get(b"/things")))["rabbitbal-route"] == b"stuff"
        assert edge.backend.keys == ["request.things", "request.stuff"]
        watching.cancel()


async def test_a_broken_table_changes_nothing_and_is_told(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With line and column; on the edge's page, too."""
    monkeypatch.setattr(watch, "PERIOD", 0.01)
    async with serve(TABLE) as edge:
        good = await routes(edge)
        watching = asyncio.ensure_future(edge.routes.run())
        replace_file(tmp_path / "routes.yaml", TABLE.replace("method:", "methods:"))
        await until(lambda: [event["event"] for event in edge.told if event["event"] == "routes.refused"])
        now = await routes(edge)
        assert now["digest"] == good["digest"]
        assert "routes.yaml:6:" in json.dumps(now)
        assert "routes.yaml:6:" in json.dumps([event for event in edge.told if event["event"] == "routes.refused"])
        assert (await edge.ask(get(b"/things")))["rabbitbal-route"] == b"things"
        watching.cancel()


async def test_the_table_in_force_is_on_a_page(edge: Deployment) -> None:
    """Where it is from, and what it says."""
    page = await routes(edge)
    assert page["digest"] == edge.routes.table.digest
    assert str(page["source"]).endswith("routes.yaml")
    found = page["routes"]
    assert isinstance(found, list)
    assert [(route["name"], route["mode"]) for route in found] == [
        (name, "one") for name in ("tenants", "secure", "bots", "writes", "things", "numbers", "topics", "default")
    ]
    assert [route["to"] for route in found][:2] == [["north.tenants"], ["north"]]


async def test_what_was_done_with_copies_is_among_the_figures(edge: Deployment) -> None:
    """Hedges, shadows."""
    stats = json.loads((await edge.ask(GET.replace(b"/ ", b"/_rabbitbal/stats "))).body)
    assert isinstance(stats["copies"], dict)
    assert stats["copies"]
