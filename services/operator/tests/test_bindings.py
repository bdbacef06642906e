"""Bindings that would run a request twice are found; a move never leaves a key without a pool unsaid."""

import asyncio
from typing import Any

import pytest

from rabbitbal.operator import bindings as module
from rabbitbal.operator.bindings import Binder, checked_key, conflicts, existing, holders, leads
from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.management import Pool
from rabbitbal.runtime.broker import Server

POOLS = {
    "default": Pool("default", 0, 0, None, bindings=["default", "shop.*"]),
    "north": Pool("north", 0, 0, None, bindings=["north", "shop.cart"]),
}


def test_where_a_key_leads() -> None:
    assert leads("shop.cart", POOLS) == ["default", "north"]
    assert leads("shop.list", POOLS) == ["default"]
    assert leads("nowhere", POOLS) == []
    assert holders("shop.*", POOLS) == ("default",)


def test_conflicts_name_the_bindings() -> None:
    assert conflicts("shop.x", ("north",), POOLS) == ["shop.* → default"]
    assert conflicts("#", (), POOLS) == ["default → default", "shop.* → default", "north → north", "shop.cart → north"]
    assert conflicts("other", (), POOLS) == []


def test_mistakes() -> None:
    with pytest.raises(Misused, match="'a b' is no key"):
        checked_key("a b")
    with pytest.raises(Failed, match="there is no pool 'x'; there are: default, north"):
        existing("x", POOLS)


class Broker:
    """Remembers what was asked, and refuses what is in ``refused``."""

    done: list[tuple[str, str, str]]
    refused: set[tuple[str, str]]
    before: Any = None

    def __init__(self, server: Server) -> None:
        pass

    async def __aenter__(self) -> "Broker":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def route(self, key: str, pool: str) -> None:
        await asyncio.sleep(0)
        if ("bind", pool) in Broker.refused:
            raise ConnectionError("refused")
        Broker.done.append(("bind", key, pool))

    async def unroute(self, key: str, pool: str) -> None:
        Broker.done.append(("unbind", key, pool))


@pytest.fixture
def binder(monkeypatch: pytest.MonkeyPatch) -> Binder:
    Broker.done, Broker.refused = [], set()
    monkeypatch.setattr(module, "Topologist", Broker)
    return Binder(Server("amqp://nowhere/", None))


async def test_a_move_unbinds_and_then_binds(binder: Binder) -> None:
    change = await binder.move("a", ("north", "south"), "east")
    assert Broker.done == [
        ("unbind", "request.a", "north"),
        ("unbind", "request.a", "south"),
        ("bind", "request.a", "east"),
    ]
    assert (change.origin, change.to) == (("north", "south"), ("east",))
    assert change.gap is not None
    assert change.gap >= 0


async def test_a_move_that_is_refused_is_undone(binder: Binder) -> None:
    Broker.refused = {("bind", "east")}
    with pytest.raises(Failed, match="a stays with north: refused"):
        await binder.move("a", ("north",), "east")
    assert Broker.done[-1] == ("bind", "request.a", "north")


async def test_a_move_that_cannot_be_undone_says_so(binder: Binder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    Broker.refused = {("bind", "east"), ("bind", "north")}
    with pytest.raises(Failed, match=r"a may lead nowhere now: refused[.] Bind it: rabbitbal pools bind a north"):
        await binder.move("a", ("north",), "east")


async def test_a_move_that_is_interrupted_is_finished(binder: Binder) -> None:
    task = asyncio.ensure_future(binder.move("a", ("north",), "east"))
    for _ in range(2):
        await asyncio.sleep(0)
    assert Broker.done == [("unbind", "request.a", "north")], "between the two"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert Broker.done[-1] == ("bind", "request.a", "east")
