"""Nothing listens on a worker, only nginx and the tap's page are published, and a worker may do what it needs only."""

import json
import struct

import pytest

from integration.deployment import Container, Deployment

LISTEN, UDP_UNCONNECTED = "0A", "07"

# Run inside a worker, with its own secret: each attempt on a channel of its own, as a refusal closes the channel.
ATTEMPTS = """
import asyncio, json, os, pathlib, sys
import aio_pika

async def main():
    secret = pathlib.Path(os.environ["RABBITBAL_BROKER_PASSWORD_FILE"]).read_text().strip()
    connection = await aio_pika.connect(host="rabbitmq", login="worker", password=secret)
    edge, other = sys.argv[1:]

    async def publish(channel, exchange, key):
        to = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        await to.publish(aio_pika.Message(b"x"), key, mandatory=False)

    async def consume(channel, queue):
        await (await channel.get_queue(queue, ensure=False)).consume(print, no_ack=False)

    async def take(channel, queue):
        await (await channel.get_queue(queue, ensure=False)).get(fail=False)

    async def bind(channel, queue, exchange):
        await (await channel.get_queue(queue, ensure=False)).bind(exchange, "#")

    async def listen(channel, exchange):
        queue = await channel.declare_queue("worker.spy", exclusive=True)
        try:
            await queue.bind(exchange, "#")
        finally:
            async with connection.channel() as again:
                await again.queue_delete("worker.spy")

    attempts = {
        "may answer an edge": lambda c: publish(c, "rabbitbal.responses", "response.nobody"),
        "may set a message aside": lambda c: publish(c, "rabbitbal.dead", ""),
        "publish a request": lambda c: publish(c, "rabbitbal.requests", "request.default"),
        "publish past the routes": lambda c: publish(c, "rabbitbal.pool.default", ""),
        "publish by the default exchange": lambda c: publish(c, "", "pool.default"),
        "publish to an edge by the default exchange": lambda c: publish(c, "", edge),
        "cancel another worker's work": lambda c: publish(c, "rabbitbal.streams", other.removeprefix("worker.")),
        "write events": lambda c: publish(c, "rabbitbal.events", "ended.x"),
        "answer under a key of another kind": lambda c: publish(c, "rabbitbal.responses", "request.default"),
        "consume an edge's replies": lambda c: consume(c, edge),
        "consume another worker's queue": lambda c: consume(c, other),
        "consume the log": lambda c: consume(c, "tap.log"),
        "take a dead request": lambda c: take(c, "dead.requests"),
        "listen to requests": lambda c: listen(c, "rabbitbal.requests"),
        "listen to responses": lambda c: listen(c, "rabbitbal.responses"),
        "listen to a pool": lambda c: listen(c, "rabbitbal.pool.default"),
        "listen to events": lambda c: listen(c, "rabbitbal.events"),
        "move a pool": lambda c: bind(c, "pool.default", "rabbitbal.streams"),
        "declare an exchange": lambda c: c.declare_exchange("rabbitbal.mine"),
        "declare an exchange of any name": lambda c: c.declare_exchange("mine"),
        "declare a pool": lambda c: c.declare_queue("pool.mine"),
        "declare an edge's queue": lambda c: c.declare_queue("edge.mine"),
        "delete a pool": lambda c: c.queue_delete("pool.default"),
        "delete an exchange": lambda c: c.exchange_delete("rabbitbal.requests"),
    }
    results = {}
    for name, attempt in attempts.items():
        # Confirms: a refused publish is heard of before the next step.
        channel = await connection.channel(publisher_confirms=True)
        try:
            async with asyncio.timeout(5):
                await attempt(channel)
            results[name] = "allowed"
        except Exception as error:
            results[name] = type(error).__name__
    for login, password in (("guest", "guest"), ("worker", ""), ("worker", "wrong"), ("edge", secret)):
        try:
            await (await aio_pika.connect(host="rabbitmq", login=login, password=password, timeout=5)).close()
            results[f"log in as {login} with {password[:5]!r}"[:30]] = "allowed"
        except Exception as error:
            results[f"log in as {login} with {password[:5]!r}"[:30]] = type(error).__name__
    await connection.close()
    print(json.dumps(results))

asyncio.run(main())
"""


@pytest.fixture
def worker(shared: Deployment) -> Container:
    shared.ready(workers=2)
    return shared.workers()[0]


def sockets(deployment: Deployment, container: Container, table: str) -> list[tuple[str, int, str, str]]:
    """Local address, port, state and owner of every socket in the container's network."""
    found = []
    for line in deployment.exec(container, "cat", f"/proc/net/{table}").splitlines()[1:]:
        columns = line.split()
        address, port = columns[1].split(":")
        if len(address) == 8:
            address = ".".join(str(byte) for byte in struct.pack("<I", int(address, 16)))
        found.append((address, int(port, 16), columns[3], columns[7]))
    return found


def test_a_worker_listens_on_nothing(shared: Deployment, worker: Container) -> None:
    """No TCP socket listens, no UDP socket waits; its only TCP connections go out to the broker's port.

    127.0.0.11 is the engine's own name server, which it puts into every container's network.
    """
    own = [
        (table, *found)
        for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6")
        for found in sockets(shared, worker, table)
        if found[0] != "127.0.0.11"
    ]
    assert [found for found in own if found[3] == LISTEN] == []
    assert [found for found in own if not found[0].startswith("tcp")] == []
    # Positive control: the same reading finds the edge's listening socket, and the worker's two connections.
    edge = shared.container("edge")
    assert 8000 in {port for _, port, state, _ in sockets(shared, edge, "tcp") if state == LISTEN}
    established = [
        line.split()[2] for line in shared.exec(worker, "cat", "/proc/net/tcp").splitlines() if " 01 " in line
    ]
    assert len(established) == 2
    assert {int(remote.partition(":")[2], 16) for remote in established} == {5672}


def test_only_nginx_and_the_tap_have_ports_and_only_on_the_loopback(shared: Deployment, worker: Container) -> None:
    published = {
        (container.service, port, binding["HostIp"])
        for container in shared.containers()
        for port, bindings in container.ports.items()
        for binding in bindings or []
    }
    assert published == {("nginx", "8080/tcp", "127.0.0.1"), ("tap", "8081/tcp", "127.0.0.1")}


def test_the_bus_has_no_way_out(shared: Deployment, worker: Container) -> None:
    """A worker reaches the broker and nothing outside; nginx is not on the bus, and workers are not in front."""
    assert shared.network("bus")["Internal"] is True
    assert {c.service: set(c.addresses) for c in shared.containers() if c.state == "running"} == {
        "nginx": {"front"},
        "edge": {"front", "bus"},
        "rabbitmq": {"bus"},
        "worker": {"bus"},
        "tap": {"bus", "watch"},
    }
    edge, nginx = shared.container("edge"), shared.container("nginx").addresses["front"]
    assert reach(shared, edge, nginx, 8080) == "reached"
    assert reach(shared, worker, "rabbitmq", 5672) == "reached"
    assert reach(shared, worker, nginx, 8080) != "reached"


def test_a_worker_cannot_ask_the_tap(shared: Deployment, worker: Container) -> None:
    """The tap knows what everybody asked for. Its page is on the network `watch` alone, and not on the bus."""
    tap = shared.container("tap")
    assert reach(shared, tap, "dashboard", 8081) == "reached"
    for address in ("dashboard", "tap", tap.addresses["bus"], tap.addresses["watch"]):
        assert reach(shared, worker, address, 8081) != "reached", address


def reach(deployment: Deployment, container: Container, host: str, port: int) -> str:
    """What becomes of a connection from there."""
    script = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
    print("reached")
except OSError as error:
    print(error)
"""
    return deployment.exec(container, "python", "-c", script, host, str(port)).strip()


def test_a_worker_may_do_in_the_broker_what_it_needs_and_no_more(shared: Deployment, worker: Container) -> None:
    """Answer, and set aside what is malformed. Everything else is refused by the broker itself."""
    queues = shared.queues()
    edge = next(name for name in queues if name.startswith("edge."))
    other = next(name for name in queues if name.startswith("worker.") and worker.id[:12] not in name)
    results = json.loads(shared.exec(worker, "python", "-c", ATTEMPTS, edge, other))
    allowed = {name for name, result in results.items() if result == "allowed"}
    assert allowed == {"may answer an edge", "may set a message aside"}
    # Consuming an exclusive queue is refused because it is another's; all else because of who asks.
    refusals = {result for name, result in results.items() if result != "allowed" and not name.startswith("log in")}
    assert refusals <= {"ChannelAccessRefused", "ChannelLockedResource"}
    assert {result for name, result in results.items() if name.startswith("log in")} == {"ProbableAuthenticationError"}


def test_there_is_no_guest(shared: Deployment, worker: Container) -> None:
    """The broker knows the six roles and nobody else, and none of them administers it: one may look at its figures."""
    rows = [line.split("\t") for line in shared.rabbitmqctl("list_users").splitlines()[1:]]
    expected = {"edge": "[]", "worker": "[]", "tap": "[]", "topology": "[]", "operator": "[monitoring]", "replay": "[]"}
    assert {row[0]: row[1] for row in rows} == expected


@pytest.mark.parametrize("service", ["edge", "worker", "tap", "nginx", "rabbitmq"])
def test_no_service_runs_as_root(shared: Deployment, worker: Container, service: str) -> None:
    container = shared.containers(service)[0]
    status = shared.exec(container, "cat", "/proc/1/status")
    (uids,) = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")]
    assert "0" not in uids


def test_a_worker_cannot_read_another_roles_secret(shared: Deployment, worker: Container) -> None:
    """Its container holds its own and no other."""
    found = shared.exec(worker, "find", "/run/secrets", "-name", "password").split()
    environment = shared.exec(worker, "env")
    assert found == [line.partition("=")[2] for line in environment.splitlines() if "PASSWORD_FILE" in line]
    secret = shared.exec(worker, "cat", found[0]).strip()
    assert len(secret) >= 32
    assert secret not in environment
