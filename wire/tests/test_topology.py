"""The broker's objects: bounded, and each role may do its work and nothing else.

The permission that an operation needs is in the table of https://www.rabbitmq.com/docs/access-control; a permission is
searched for in the name, not matched, so each must be anchored.
"""

import re

import pytest

from rabbitbal.wire import topology
from rabbitbal.wire.topology import (
    DEAD,
    DEAD_QUEUE,
    DEAD_QUEUES,
    EVENTS,
    EXCHANGES,
    FIXED_BINDINGS,
    PRIVATE_QUEUE_ARGUMENTS,
    REQUESTS,
    RESPONSES,
    ROLES,
    STREAMS,
    TAP_LOG,
    TAP_QUEUES,
    Queue,
    edge_queue,
    figures_key,
    notice_key,
    pool_queue,
    request_key,
    response_key,
    worker_queue,
)

POOL = pool_queue("default")
POOL_EXCHANGE = topology.pool_exchange("default")
EDGE = edge_queue("web-1-a1b2c3")
WORKER = worker_queue("app-1-d4e5f6")
REPLAYER = topology.replayer("a1b2c3d4e5f6")
REPLAY = edge_queue(REPLAYER)
EDGES = {EDGE, REPLAY, *("edge.replay", "edge.replay-", "edge.replay-xyz", "edge.replay-a1.b2")}
PARTITION_QUEUES = {topology.partition_queue("default", 0), topology.partition_queue("default", 31)}
STICKY = {*PARTITION_QUEUES, topology.sticky_exchange("default"), topology.unpinned_exchange("default")}
# Nobody's, but ours by their prefix.
ODD = {"rabbitbal.pool.", "rabbitbal.pool.a.b", "rabbitbal.pool"}
# "amq.default" is the name under which the broker checks the default exchange.
NAMES = {
    *(exchange.name for exchange in EXCHANGES),
    *(POOL, *EDGES, "xedge.replay-a1", WORKER, TAP_LOG, DEAD_QUEUE, POOL_EXCHANGE, *STICKY),
    *ODD,
    *("amq.default", "amq.topic", "amq.direct", "amq.fanout", "amq.gen-x", "amq.rabbitmq.trace", "other"),
    *("xpool.default", "pool.", "pool", "edge.", "worker.", "rabbitbal", "rabbitbalxrequests", "a.rabbitbal.requests"),
}

# role: (configure, write, read), and every other name is forbidden.
ALLOWED: dict[str, tuple[set[str], set[str], set[str]]] = {
    "edge": (EDGES, {REQUESTS, STREAMS, EVENTS, DEAD, *EDGES}, {RESPONSES, EVENTS, *EDGES}),
    "worker": ({WORKER}, {RESPONSES, EVENTS, DEAD, WORKER}, {STREAMS, POOL, *PARTITION_QUEUES, WORKER}),
    "operator": (set(), {STREAMS, EVENTS, POOL_EXCHANGE}, {REQUESTS}),
    "replay": ({REPLAY}, {STREAMS, EVENTS, POOL_EXCHANGE, REPLAY}, {RESPONSES, REPLAY}),
    "tap": (set(), {EVENTS}, {TAP_LOG}),
    "topology": tuple(  # type: ignore[dict-item]
        [{REQUESTS, RESPONSES, STREAMS, EVENTS, DEAD, POOL, POOL_EXCHANGE, TAP_LOG, DEAD_QUEUE, *STICKY, *ODD}] * 3
    ),
}


def allowed(role: str, action: str, name: str) -> bool:
    return re.search(getattr(ROLES[role], action), name) is not None


def topic_allowed(role: str, action: str, exchange: str, key: str) -> bool:
    """An exchange that the role has no topic permission for is open to every key."""
    write, read = ROLES[role].topics.get(exchange, ("", ""))
    return re.search(write if action == "write" else read, key) is not None


def may_publish(role: str, exchange: str, key: str) -> bool:
    return allowed(role, "write", exchange) and topic_allowed(role, "write", exchange, key)


def may_bind(role: str, queue: str, exchange: str, key: str) -> bool:
    return (
        allowed(role, "write", queue) and allowed(role, "read", exchange) and topic_allowed(role, "read", exchange, key)
    )


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_touch_exactly_these_objects(role: str) -> None:
    for action, names in zip(("configure", "write", "read"), ALLOWED[role], strict=True):
        assert {name for name in NAMES if allowed(role, action, name)} == names, action


@pytest.mark.parametrize("role", ROLES)
def test_every_permission_is_a_pattern_of_the_whole_name(role: str) -> None:
    permissions = ROLES[role]
    for pattern in (permissions.configure, permissions.write, permissions.read):
        assert pattern.startswith("^")
        assert pattern.endswith("$")
        # No alternative escapes from the anchors.
        assert "|" not in re.sub(r"\(.*\)", "", pattern)
    for write, read in permissions.topics.values():
        assert write.startswith("^")
        assert read.startswith("^")


PUBLISHES = {
    "edge": [
        (REQUESTS, request_key("default")),
        (REQUESTS, request_key("shop.eu.de")),
        (STREAMS, "app-1"),
        (EVENTS, "ended.web-1"),
        (EVENTS, notice_key("edge", "web-1")),
        (EVENTS, figures_key("edge", "web-1")),
        (DEAD, ""),
    ],
    "worker": [
        (RESPONSES, response_key("web-1")),
        (EVENTS, notice_key("worker", "app-1")),
        (EVENTS, figures_key("worker", "app-1")),
        (DEAD, ""),
    ],
    "operator": [(STREAMS, "app-1"), (STREAMS, topology.EVERY_WORKER), (EVENTS, notice_key("operator", "me-1"))],
    "replay": [(STREAMS, "app-1"), (STREAMS, topology.EVERY_WORKER), (EVENTS, f"ended.{REPLAYER}")],
    "tap": [(EVENTS, "tap.anything"), (EVENTS, topology.VERDICT_KEY)],
    "topology": [],
}
PUBLISHES_NOT = {
    "edge": [
        (REQUESTS, "response.web-1"),
        (REQUESTS, "xrequest.default"),
        (REQUESTS, ""),
        (RESPONSES, response_key("web-1")),
        (EVENTS, "tap.anything"),
        (EVENTS, figures_key("worker", "app-1")),
        (EVENTS, notice_key("worker", "app-1")),
        (EVENTS, notice_key("operator", "me-1")),
        ("amq.default", POOL),
    ],
    "operator": [
        (REQUESTS, request_key("default")),
        (RESPONSES, response_key("web-1")),
        (EVENTS, "ended.web-1"),
        (EVENTS, notice_key("edge", "web-1")),
        (EVENTS, notice_key("worker", "app-1")),
        (DEAD, ""),
        ("amq.default", POOL),
        ("amq.default", WORKER),
    ],
    "replay": [
        (REQUESTS, request_key("default")),
        (RESPONSES, response_key("web-1")),
        (EVENTS, "ended.web-1"),
        (EVENTS, "ended.replay-xyz"),
        (EVENTS, f"ended.{REPLAYER}.more"),
        (EVENTS, notice_key("operator", "me-1")),
        (EVENTS, topology.figures_key("edge", REPLAYER)),
        (DEAD, ""),
        ("amq.default", POOL),
    ],
    "worker": [
        (REQUESTS, request_key("default")),
        (RESPONSES, "request.default"),
        (RESPONSES, "xresponse.web-1"),
        (STREAMS, "app-1"),
        (EVENTS, "ended.web-1"),
        (EVENTS, notice_key("edge", "web-1")),
        (EVENTS, figures_key("edge", "web-1")),
        (EVENTS, notice_key("operator", "me-1")),
        ("amq.default", EDGE),
        ("amq.default", POOL),
    ],
    "tap": [
        (EVENTS, "ended.web-1"),
        (REQUESTS, request_key("default")),
        (RESPONSES, response_key("web-1")),
        (STREAMS, "app-1"),
        (DEAD, ""),
        ("amq.default", TAP_LOG),
    ],
    "topology": [("amq.default", POOL)],
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_publishes_what_is_its_own_to_say_and_nothing_else(role: str) -> None:
    for exchange, key in PUBLISHES[role]:
        assert may_publish(role, exchange, key), (exchange, key)
    for exchange, key in PUBLISHES_NOT[role]:
        assert not may_publish(role, exchange, key), (exchange, key)


def test_an_edge_binds_its_own_queue_to_responses_and_to_verdicts_only() -> None:
    assert may_bind("edge", EDGE, EVENTS, topology.VERDICT_KEY)
    for key in ("#", "tap.#", "tap.verdict.#", "ended.#", notice_key("worker", "app-1")):
        assert not may_bind("edge", EDGE, EVENTS, key), key
    assert may_bind("edge", EDGE, RESPONSES, response_key("web-1"))
    assert not may_bind("edge", EDGE, REQUESTS, request_key("default"))
    assert not may_bind("edge", EDGE, RESPONSES, "#")
    assert not may_bind("edge", POOL, RESPONSES, response_key("web-1"))


def test_a_worker_binds_its_own_queue_to_streams_only() -> None:
    assert may_bind("worker", WORKER, STREAMS, "app-1")
    for exchange in (REQUESTS, RESPONSES, EVENTS, DEAD, POOL_EXCHANGE):
        assert not may_bind("worker", WORKER, exchange, "#")
    assert not may_bind("worker", POOL, STREAMS, "app-1")


def test_a_tap_binds_nothing_and_declares_nothing() -> None:
    for exchange in EXCHANGES:
        assert not may_bind("tap", TAP_LOG, exchange.name, "#")
    assert not any(allowed("tap", "configure", name) for name in NAMES)


def test_the_topology_job_may_declare_and_bind_everything_that_is_shared() -> None:
    for exchange in EXCHANGES:
        assert allowed("topology", "configure", exchange.name)
    for queue in (*TAP_QUEUES, *DEAD_QUEUES, topology.pool("default", 1, 1)):
        assert allowed("topology", "configure", queue.name)
    for binding in FIXED_BINDINGS:
        assert may_bind("topology", binding.queue, binding.exchange, binding.key)
    assert may_bind("topology", POOL_EXCHANGE, REQUESTS, request_key("default"))
    for binding in topology.pool_bindings("default"):
        assert may_bind("topology", binding.queue, binding.exchange, binding.key)


def test_an_operator_binds_pools_to_requests_and_nothing_else() -> None:
    """What it binds is a pool's exchange: it cannot have requests led to a queue of its own, or read what is in one."""
    assert may_bind("operator", POOL_EXCHANGE, REQUESTS, request_key("default"))
    assert may_bind("operator", POOL_EXCHANGE, REQUESTS, "request.reports.#")
    for queue in (POOL, EDGE, WORKER, TAP_LOG, DEAD_QUEUE, *STICKY):
        assert not may_bind("operator", queue, REQUESTS, request_key("default"))
    for exchange in (RESPONSES, STREAMS, EVENTS, DEAD, *STICKY):
        assert not may_bind("operator", POOL_EXCHANGE, exchange, request_key("default"))
    assert not may_bind("operator", POOL_EXCHANGE, REQUESTS, "#")
    assert ROLES["operator"].tags == ("monitoring",)
    assert [role for role in ROLES if ROLES[role].tags] == ["operator"]


def test_who_replays_gets_the_answers_to_its_own_requests_and_no_request() -> None:
    """Neither does it read other clients' answers, nor has it their requests led to its queue, which is why it is no
    operator."""
    assert may_bind("replay", REPLAY, RESPONSES, response_key(REPLAYER))
    assert may_bind("replay", REPLAY, RESPONSES, topology.body_key(REPLAYER))
    for key in ("#", "response.#", "*.replay-a1", "response.*", response_key("web-1"), f"response.{REPLAYER}.#"):
        assert not may_bind("replay", REPLAY, RESPONSES, key), key
    for exchange in (REQUESTS, STREAMS, EVENTS, DEAD, POOL_EXCHANGE, *STICKY):
        for key in ("#", request_key("default"), response_key(REPLAYER)):
            assert not may_bind("replay", REPLAY, exchange, key), (exchange, key)
    for queue in (POOL, EDGE, WORKER, TAP_LOG, DEAD_QUEUE, *PARTITION_QUEUES):
        assert not may_bind("replay", queue, RESPONSES, response_key(REPLAYER))
        assert not allowed("replay", "read", queue)
    assert not may_bind("operator", REPLAY, REQUESTS, request_key("default"))


def test_the_user_whose_orders_workers_take_is_a_role() -> None:
    assert topology.OPERATOR in ROLES
    assert [role for role in ROLES if may_publish(role, STREAMS, "app-1")] == [
        "edge",
        "operator",
        "replay",
        "topology",
    ]


def test_the_user_whose_verdicts_edges_believe_is_a_role() -> None:
    """No other may say one, either."""
    assert [role for role in ROLES if may_publish(role, EVENTS, topology.VERDICT_KEY)] == [topology.TAP, "topology"]


def test_nobody_but_the_topology_job_changes_what_is_shared() -> None:
    shared = {exchange.name for exchange in EXCHANGES} | {POOL, POOL_EXCHANGE, TAP_LOG, DEAD_QUEUE}
    for role in ROLES.keys() - {"topology"}:
        assert not any(allowed(role, "configure", name) for name in shared)


def test_topic_permissions_cover_every_topic_exchange_that_a_service_touches() -> None:
    topics = {exchange.name for exchange in EXCHANGES if exchange.type == "topic"}
    for role in ROLES.keys() - {"topology"}:
        touched = {name for name in topics if allowed(role, "write", name) or allowed(role, "read", name)}
        assert touched == set(ROLES[role].topics)


# --- objects


def overflow(queue: Queue) -> object:
    return queue.arguments["x-overflow"]


POOLS = (
    topology.pool("default", 1000, 2**20),
    topology.pool("reports", 1, 1),
    *topology.partitions("shop", 7, 8),
)


@pytest.mark.parametrize("queue", TAP_QUEUES, ids=lambda queue: queue.name)
def test_a_full_tap_queue_drops_its_oldest_and_refuses_nobody(queue: Queue) -> None:
    assert queue.name.startswith("tap.")
    assert overflow(queue) == "drop-head"


@pytest.mark.parametrize("queue", POOLS, ids=lambda queue: queue.name)
def test_a_full_pool_refuses_the_next_request(queue: Queue) -> None:
    assert overflow(queue) == "reject-publish"


def test_a_pool_is_as_long_as_it_was_asked_to_be() -> None:
    assert topology.pool("reports", 12, 3456) == Queue(
        "pool.reports", {"x-max-length": 12, "x-max-length-bytes": 3456, "x-overflow": "reject-publish"}
    )


@pytest.mark.parametrize(
    "arguments",
    [*(queue.arguments for queue in (*TAP_QUEUES, *DEAD_QUEUES, *POOLS)), PRIVATE_QUEUE_ARGUMENTS],
    ids=[*(queue.name for queue in (*TAP_QUEUES, *DEAD_QUEUES, *POOLS)), "private"],
)
def test_every_queue_is_bounded_in_messages_and_in_bytes(arguments: dict[str, object]) -> None:
    for bound in ("x-max-length", "x-max-length-bytes"):
        value = arguments[bound]
        assert isinstance(value, int)
        assert value > 0
    assert arguments["x-overflow"] in {"drop-head", "reject-publish"}


def test_fixed_bindings_join_objects_that_exist() -> None:
    exchanges = {exchange.name: exchange.type for exchange in EXCHANGES}
    queues = {queue.name for queue in (*TAP_QUEUES, *DEAD_QUEUES)}
    assert {binding.queue for binding in FIXED_BINDINGS} == queues
    assert {binding.exchange for binding in FIXED_BINDINGS} <= set(exchanges)
    assert {exchanges[binding.exchange] for binding in FIXED_BINDINGS if binding.key} == {"topic"}


def test_a_request_that_reaches_no_pool_reaches_no_tap_either() -> None:
    """Else the broker would never return a request as unroutable."""
    assert not any(binding.exchange == REQUESTS for binding in FIXED_BINDINGS)
    assert {binding.queue for binding in topology.pool_bindings("default")} == {POOL, TAP_LOG}


def test_names_are_unique_and_ours() -> None:
    names = [exchange.name for exchange in EXCHANGES] + [queue.name for queue in (*TAP_QUEUES, *DEAD_QUEUES)]
    assert len(set(names)) == len(names)
    # The broker reserves names that begin with "amq." (AMQP 0-9-1).
    assert not any(name.startswith("amq.") for name in names)
    assert {exchange.name for exchange in EXCHANGES} == {REQUESTS, RESPONSES, STREAMS, EVENTS, DEAD}


def test_names_and_keys_read_as_the_specification_says() -> None:
    assert (request_key("r"), response_key("e")) == ("request.r", "response.e")
    assert (pool_queue("p"), edge_queue("e"), worker_queue("w")) == ("pool.p", "edge.e", "worker.w")


def test_a_sticky_pool_leads_each_partition_to_a_queue_of_its_own() -> None:
    """By a header that is compared as text; what fits none goes another way, to the pool's own queue."""
    queues = topology.partitions("shop", 7, 8)
    bindings = topology.partition_bindings("shop")
    assert [binding.queue for binding in bindings] == [queue.name for queue in queues]
    assert len({queue.name for queue in queues}) == topology.PARTITIONS
    assert [binding.arguments for binding in bindings] == [
        {"x-match": "all", "partition": str(number)} for number in range(topology.PARTITIONS)
    ]
    unpinned, sticky = topology.sticky_exchanges("shop")
    assert {binding.exchange for binding in bindings} == {sticky.name}
    assert (sticky.type, sticky.arguments) == ("headers", {"alternate-exchange": unpinned.name})
    assert (unpinned.type, unpinned.arguments) == ("fanout", {})
    assert {queue.name for queue in queues}.isdisjoint({pool_queue("shop"), pool_queue("shop0")})
