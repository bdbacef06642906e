"""Pools, declared on a broker in memory that routes: each request reaches one queue, before and behind every step."""

from typing import cast

import pytest

from rabbitbal.runtime.broker import Topologist
from rabbitbal.runtime.settings import read
from rabbitbal.topology.pools import declare_pool
from rabbitbal.topology.settings import Settings
from rabbitbal.wire import topology
from rabbitbal.wire.topology import PARTITIONS, TAP_LOG, Binding, Exchange, Queue

SETTINGS = read(Settings, {"RABBITBAL_POOL_LENGTH": "7", "RABBITBAL_QUEUE_TYPE": "quorum"})
Step = tuple[str, str]


class Interrupted(Exception):
    """The job was killed."""


class Broker:
    """Exchanges, queues, bindings, and what the broker does with a message. Checks itself after each step."""

    def __init__(self) -> None:
        self.exchanges: dict[str, Exchange] = {topology.REQUESTS: Exchange(topology.REQUESTS, "topic")}
        self.queues: dict[str, Queue] = {TAP_LOG: Queue(TAP_LOG)}
        self.bindings: list[Binding] = []
        self.routes: set[Step] = set()
        self.chains: set[Step] = set()
        self.steps = 0
        self.last_step: int | None = None
        self.watched: str | None = None

    def _stepped(self) -> None:
        self.steps += 1
        if self.watched is not None:
            for partition in (None, *range(PARTITIONS)):
                queues = self.reached(self.watched, partition) - {TAP_LOG}
                assert len(queues) == 1, (self.steps, partition, queues)
        if self.steps == self.last_step:
            raise Interrupted

    def reached(self, pool: str, partition: int | None) -> set[str]:
        """Queues that a request to the pool's exchange gets into; each gets it once."""
        return self._into(topology.pool_exchange(pool), None if partition is None else str(partition))

    def _into(self, name: str, header: str | None) -> set[str]:
        exchange = self.exchanges[name]
        found: set[str] = set()
        for binding in self.bindings:
            fits = exchange.type == "fanout" or binding.arguments.get("partition") == header
            if binding.exchange == name and fits:
                found.add(binding.queue)
        for source, destination in self.chains:
            if source == name:
                found |= self._into(destination, header)
        alternate = exchange.arguments.get("alternate-exchange")
        return found or (self._into(alternate, header) if alternate else set())

    async def exists(self, queue: str) -> bool:
        return queue in self.queues

    async def exchange(self, exchange: Exchange) -> None:
        assert self.exchanges.setdefault(exchange.name, exchange) == exchange
        self._stepped()

    async def queue(self, queue: Queue, queue_type: str) -> None:
        assert queue_type == ("classic" if queue.name.count(".") == 2 else "quorum"), "only a classic one can be leased"
        assert self.queues.setdefault(queue.name, queue) == queue
        self._stepped()

    async def bind(self, binding: Binding) -> None:
        assert binding.queue in self.queues
        assert binding.exchange in self.exchanges
        if binding not in self.bindings:
            self.bindings.append(binding)
        self._stepped()

    async def unbind(self, binding: Binding) -> None:
        assert binding.queue in self.queues
        if binding in self.bindings:
            self.bindings.remove(binding)
        self._stepped()

    async def route(self, key: str, pool: str) -> None:
        assert topology.pool_exchange(pool) in self.exchanges
        self.routes.add((key, pool))
        self._stepped()

    async def connect_exchanges(self, source: str, destination: str) -> None:
        assert {source, destination} <= self.exchanges.keys()
        self.chains.add((source, destination))
        self._stepped()

    def state(self) -> tuple[object, ...]:
        bindings = sorted(self.bindings, key=repr)
        return self.exchanges.copy(), self.queues.copy(), bindings, self.routes.copy(), self.chains.copy()


@pytest.fixture
def broker() -> Broker:
    return Broker()


async def declared(broker: Broker, *, sticky: bool, name: str = "shop") -> None:
    await declare_pool(cast(Topologist, broker), name, SETTINGS, sticky=sticky)


async def test_a_new_pool_is_bound_to_the_key_of_its_own_name(broker: Broker) -> None:
    """So a route to it works without an operator."""
    await declared(broker, sticky=False)
    assert broker.routes == {("request.shop", "shop")}
    assert broker.reached("shop", None) == broker.reached("shop", 3) == {"pool.shop", TAP_LOG}


@pytest.mark.parametrize("sticky", [False, True])
async def test_a_binding_that_an_operator_moved_is_not_brought_back(broker: Broker, sticky: bool) -> None:
    """A second run finds the pool there; nor does making it sticky bring it back."""
    await declared(broker, sticky=False)
    broker.routes = {("request.shop", "other")}
    await declared(broker, sticky=sticky)
    assert broker.routes == {("request.shop", "other")}


async def test_a_sticky_pool_leads_a_request_by_its_partition(broker: Broker) -> None:
    """The tap sees all; what has no partition, or one that there is not, goes to the pool's own queue."""
    await declared(broker, sticky=True)
    for number in range(PARTITIONS):
        assert broker.reached("shop", number) == {f"pool.shop.{number}", TAP_LOG}
    assert broker.reached("shop", None) == broker.reached("shop", PARTITIONS) == {"pool.shop", TAP_LOG}
    assert broker.routes == {("request.shop", "shop")}


async def test_partitions_are_bounded_as_the_pool_is(broker: Broker) -> None:
    """A full one refuses the next request."""
    await declared(broker, sticky=True)
    bounds = {"x-max-length": 7, "x-max-length-bytes": 128 * 2**20, "x-overflow": "reject-publish"}
    assert {queue.name: queue.arguments for queue in broker.queues.values() if queue.name != TAP_LOG} == {
        "pool.shop": bounds,
        **{f"pool.shop.{number}": bounds for number in range(PARTITIONS)},
    }


@pytest.mark.parametrize("sticky", [False, True])
async def test_a_second_run_changes_nothing(broker: Broker, sticky: bool) -> None:
    """Nor does it disturb what flows."""
    await declared(broker, sticky=sticky)
    before = broker.state()
    broker.watched = "shop"
    await declared(broker, sticky=sticky)
    assert broker.state() == before


async def test_a_pool_becomes_sticky_and_plain_while_requests_flow(broker: Broker) -> None:
    """After each single step a request of any partition reaches exactly one queue: none is lost and none runs twice."""
    await declared(broker, sticky=False)
    broker.watched = "shop"
    for sticky in (True, False, True, False):
        before = broker.steps
        await declared(broker, sticky=sticky)
        assert broker.steps > before
        expected = "pool.shop.9" if sticky else "pool.shop"
        assert broker.reached("shop", 9) == {expected, TAP_LOG}
        assert broker.reached("shop", None) == {"pool.shop", TAP_LOG}


@pytest.mark.parametrize("sticky", [False, True])
async def test_a_job_that_was_interrupted_is_made_good_by_the_next(sticky: bool) -> None:
    """At whatever step, in whichever direction, and with a new pool as well."""
    whole = Broker()
    await declared(whole, sticky=not sticky)
    first = whole.steps
    await declared(whole, sticky=sticky)
    for last in range(1, whole.steps):
        broker = Broker()
        broker.last_step = last

        async def both(broker: Broker = broker) -> None:
            await declared(broker, sticky=not sticky)
            broker.watched = "shop"
            await declared(broker, sticky=sticky)

        with pytest.raises(Interrupted):
            await both()
        broker.last_step = None
        broker.watched = "shop" if last >= first else None
        await declared(broker, sticky=sticky)
        assert broker.routes == {("request.shop", "shop")}
        expected = "pool.shop.9" if sticky else "pool.shop"
        assert broker.reached("shop", 9) == {expected, TAP_LOG}
        assert broker.reached("shop", None) == {"pool.shop", TAP_LOG}


async def test_the_names_are_those_of_the_specification(broker: Broker) -> None:
    """Workers, edges and operators use them."""
    await declared(broker, sticky=True)
    assert {name: exchange.type for name, exchange in broker.exchanges.items()} == {
        "rabbitbal.requests": "topic",
        "rabbitbal.pool.shop": "fanout",
        "rabbitbal.sticky.shop": "headers",
        "rabbitbal.unpinned.shop": "fanout",
    }
    assert broker.exchanges["rabbitbal.sticky.shop"].arguments == {"alternate-exchange": "rabbitbal.unpinned.shop"}
    assert broker.chains == {("rabbitbal.pool.shop", "rabbitbal.sticky.shop")}
