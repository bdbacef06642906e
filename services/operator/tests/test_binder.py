"""A move never leaves a key without a pool unsaid, whatever breaks between its halves."""

import os
import signal
from collections.abc import Callable
from typing import cast

import pytest

from rabbitbal.operator import binder as module
from rabbitbal.operator.binder import Binder, HalfDone
from rabbitbal.operator.errors import Failed
from rabbitbal.runtime.broker import Server, Topologist

Step = tuple[str, str, str]


class Broker:
    """Keeps bindings, as pairs of key and pool. ``before`` may raise, and is asked with each step."""

    def __init__(self) -> None:
        self.bindings: set[tuple[str, str]] = set()
        self.steps: list[Step] = []
        self.connections = 0
        self.before: Callable[[Step], None] = lambda step: None
        self.after: Callable[[Step], None] = lambda step: None

    def connect(self, server: Server) -> Topologist:
        return cast("Topologist", _Connection(self))

    def take(self, step: Step) -> None:
        self.before(step)
        self.steps.append(step)
        verb, key, pool = step
        (self.bindings.add if verb == "bind" else self.bindings.discard)((key, pool))
        self.after(step)


class _Connection:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def __aenter__(self) -> "_Connection":
        self._broker.before(("connect", "", ""))
        self._broker.connections += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def route(self, key: str, pool: str) -> None:
        self._broker.take(("bind", key, pool))

    async def unroute(self, key: str, pool: str) -> None:
        self._broker.take(("unbind", key, pool))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    monkeypatch.setattr(module, "PAUSE", 0)
    broker = Broker()
    broker.bindings = {("request.a", "north")}
    return broker


@pytest.fixture
def noticed() -> list[str]:
    return []


@pytest.fixture
def binder(broker: Broker, noticed: list[str]) -> Binder:
    return Binder(Server("amqp://nowhere/", None), lambda: noticed.append("signal"), broker.connect)


def refuse(*refused: Step, times: int = 1_000) -> Callable[[Step], None]:
    left = [times]

    def before(step: Step) -> None:
        if step in refused and left[0]:
            left[0] -= 1
            raise ConnectionError("refused")

    return before


async def test_bind_and_unbind(binder: Binder, broker: Broker) -> None:
    assert (await binder.bind("b", "south")).to == ("south",)
    assert (await binder.unbind("a", ("north",))).origin == ("north",)
    assert broker.bindings == {("request.b", "south")}


async def test_a_move_unbinds_and_then_binds_on_one_connection(binder: Binder, broker: Broker) -> None:
    change = await binder.move("a", ("north", "south"), "east")
    assert broker.steps == [
        ("unbind", "request.a", "north"),
        ("unbind", "request.a", "south"),
        ("bind", "request.a", "east"),
    ]
    assert broker.connections == 1
    assert (change.origin, change.to) == (("north", "south"), ("east",))
    assert change.gap is not None
    assert change.gap >= 0


async def test_a_key_that_two_pools_have_is_left_to_one_without_a_gap(binder: Binder, broker: Broker) -> None:
    change = await binder.move("a", ("north", "east"), "east")
    assert broker.steps == [("unbind", "request.a", "north")]
    assert change.gap is None


async def test_a_move_that_is_refused_is_undone(binder: Binder, broker: Broker) -> None:
    """On connections of their own: the broker closes one on which it has refused something."""
    broker.before = refuse(("bind", "request.a", "east"), ("unbind", "request.a", "east"))
    with pytest.raises(HalfDone, match="refused") as caught:
        await binder.move("a", ("north",), "east")
    assert caught.value.restored
    assert broker.bindings == {("request.a", "north")}
    assert broker.connections == 3


async def test_a_bind_whose_confirm_is_lost_is_undone(binder: Binder, broker: Broker) -> None:
    """It was done, though nobody said so: undone, the key does not lead to both."""
    lost = [True]

    def after(step: Step) -> None:
        if step == ("bind", "request.a", "east") and lost:
            lost.clear()
            raise TimeoutError

    broker.after = after
    with pytest.raises(HalfDone, match="TimeoutError"):
        await binder.move("a", ("north",), "east")
    assert broker.bindings == {("request.a", "north")}


async def test_undoing_is_tried_again(binder: Binder, broker: Broker) -> None:
    broker.before = refuse(("bind", "request.a", "east"), ("bind", "request.a", "north"), times=3)
    with pytest.raises(HalfDone) as caught:
        await binder.move("a", ("north",), "east")
    assert caught.value.restored
    assert broker.bindings == {("request.a", "north")}


async def test_a_move_that_cannot_be_undone_says_so(binder: Binder, broker: Broker) -> None:
    broker.before = refuse(("bind", "request.a", "east"), ("bind", "request.a", "north"))
    with pytest.raises(HalfDone) as caught:
        await binder.move("a", ("north",), "east")
    assert not caught.value.restored
    assert broker.bindings == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_move_that_is_interrupted_is_finished(
    binder: Binder, broker: Broker, noticed: list[str], number: signal.Signals
) -> None:
    """Ctrl-C between the halves, twice; afterwards signals mean again what they meant."""
    before = signal.getsignal(number)

    def interrupt(step: Step) -> None:
        if step[0] == "unbind":
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)

    broker.after = interrupt
    await binder.move("a", ("north",), "east")
    assert broker.bindings == {("request.a", "east")}
    assert noticed
    assert signal.getsignal(number) is before


async def test_a_broker_that_cannot_be_reached_is_told(binder: Binder, broker: Broker) -> None:
    broker.before = refuse(("connect", "", ""))
    with pytest.raises(Failed, match="the broker cannot be reached, or refused: refused"):
        await binder.move("a", ("north",), "east")
    assert broker.bindings == {("request.a", "north")}
