"""WebSockets through nginx, edge, broker and worker: as the application's own server would have them."""

import asyncio
import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from integration.client import Address, get
from integration.deployment import Container, Deployment
from integration.polling import eventually
from integration.websocket.autobahn import autobahn, summary, worse, wstest
from integration.websocket.conformance import Transcripts, conformance, regressions, table
from integration.websocket.frames import binary
from integration.websocket.server import copy_uvicorn, uvicorn

MIB = 1 << 20
BLOCK = 1 << 16
CLOSED = 10.0
HEAD = (
    "GET {target} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture(scope="module")
def deployment(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    """Two workers of four slots, and uvicorn as an upstream."""
    site = directory / "site"
    copy_uvicorn(site)
    deployment = Deployment(
        directory,
        ("tests/integration/websocket/upstream.yml",),
        RABBITBAL_APP_DIR=app_dir,
        RABBITBAL_APP="sockets:app",
        RABBITBAL_CONCURRENCY="4",
        TEST_SITE=str(site),
    )
    try:
        deployment.up(workers=2)
        yield deployment
    finally:
        deployment.down()


@pytest.fixture
def ready(deployment: Deployment) -> Deployment:
    deployment.ready(workers=2)
    deployment.change()
    return deployment


@pytest.fixture
def key() -> str:
    return token_hex(4)


@pytest.fixture(scope="module")
def server(app_dir: str, directory: Path) -> Iterator[Address]:
    """The same application under uvicorn alone."""
    with uvicorn("sockets:app", app_dir, directory / "uvicorn.log") as address:
        yield address


@pytest.fixture(scope="module")
def direct(server: Address) -> Transcripts:
    """How the conformance list goes without Rabbitbal."""
    return conformance(server)


def url(deployment: Deployment, target: str) -> str:
    return f"ws://{deployment.http[0]}:{deployment.http[1]}{target}"


def opened(deployment: Deployment, target: str, **options: Any) -> ClientConnection:
    """No size is too large for this client; it pings nobody by itself."""
    quiet: dict[str, Any] = {"max_size": None, "ping_interval": None, "proxy": None}
    connection: ClientConnection = connect(url(deployment, target), **{**quiet, **options})
    return connection


def ending(connection: ClientConnection) -> tuple[int | None, str]:
    """Code and reason of the server's close frame; None: it came without one."""
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv(timeout=CLOSED)
    received = closed.value.rcvd
    return (received.code, received.reason) if received else (None, "")


def gone(deployment: Deployment, key: str) -> dict[str, Any]:
    """What the application said when its client had left."""

    def said() -> list[dict[str, Any]]:
        return [line for worker in deployment.workers() for line in deployment.events(worker, "gone")]

    return eventually(lambda: [line for line in said() if line["key"] == key], f"the application of {key} is told")[0]


def raw_socket(address: Address, target: str, receive_buffer: int = 0) -> socket.socket:
    """A connection that has shaken hands, for a client that behaves badly afterwards."""
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(CLOSED)
    connection.connect(address)
    connection.sendall(HEAD.format(target=target).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return connection


def memory(deployment: Deployment, container: Container) -> int:
    """Bytes of the container's own, without the files that the kernel keeps in memory for it."""
    script = "cat /sys/fs/cgroup/memory.stat 2>/dev/null || cat /sys/fs/cgroup/memory/memory.stat"
    found = re.search(r"^(?:anon|total_rss) (\d+)$", deployment.exec(container, "sh", "-c", script), re.MULTILINE)
    assert found is not None
    return int(found[1])


def settled(value: Callable[[], int], what: str) -> int:
    """A number above 0 that no longer grows: the same in each look during two seconds."""
    seen: list[tuple[float, int]] = []

    def stands() -> bool:
        seen.append((time.monotonic(), value()))
        same = [at for at, number in seen if number == seen[-1][1]]
        return seen[-1][1] > 0 and seen[-1][0] - same[0] > 2

    eventually(stands, what, 60, 0.25)
    return seen[-1][1]


# --- the protocol, case by case


@pytest.mark.timeout(600)
def test_no_case_of_the_list_passes_directly_and_fails_here(
    ready: Deployment, server: Address, direct: Transcripts
) -> None:
    """The conformance list against the application under uvicorn, and against it in a worker."""
    assert_as_good(ready, server, direct, "in a worker")


def assert_as_good(deployment: Deployment, server: Address, direct: Transcripts, name: str) -> None:
    through = conformance(deployment.http)
    print(table({"directly": direct, name: through}))
    assert sum(transcript.status == 101 for transcript in direct.values()) > 200
    assert regressions(direct, through) == {}
    assert get(deployment.http, "/whoami").status == 200


if (program := wstest()) is not None:

    @pytest.mark.timeout(7200)
    def test_autobahn_finds_no_case_that_fails_only_here(ready: Deployment, server: Address, tmp_path: Path) -> None:
        """Autobahn's suite, where it is installed: see websocket/autobahn.py."""
        assert program is not None
        results = autobahn(program, {"direct": server, "through": ready.http}, "/echo", tmp_path)
        print(summary(results))
        assert results["through"].keys() == results["direct"].keys() != set()
        assert worse(results["direct"], results["through"]) == {}


# --- what an application and its clients see


def test_text_and_binary_messages_come_back(ready: Deployment) -> None:
    """With their kinds, empty ones too, and pings are answered on the way."""
    with opened(ready, "/echo") as connection:
        for message in ("h\u00e9llo", b"\x00\xff", "", b"", "x" * 100_000):
            connection.send(message)
            assert connection.recv(timeout=10) == message
        assert connection.ping(b"p").wait(10)
    assert connection.close_code == 1000


def test_the_demonstration_has_a_websocket(ready: Deployment) -> None:
    """/ws, which the first page uses."""
    with opened(ready, "/ws?close=4001", subprotocols=[Subprotocol("chat")]) as connection:
        connection.send("hello")
        assert ending(connection) == (4001, "as the query asked")
        assert connection.subprotocol == "chat"


def test_the_handshake_travels_both_ways(ready: Deployment) -> None:
    """Path, query, subprotocols, fields and cookies to the application; its choice, fields and cookies back."""
    with opened(
        ready,
        "/handshake?a=%20&a",
        subprotocols=[Subprotocol("unknown"), Subprotocol("chat"), Subprotocol("echo")],
        origin="https://elsewhere.example",
        additional_headers=[("Cookie", "c=1; d=2"), ("X-Twice", "1"), ("X-Twice", "2"), ("Rabbitbal-Worker", "forged")],
    ) as connection:
        seen = json.loads(connection.recv(timeout=10))
        assert connection.subprotocol == "chat"
        assert connection.response is not None
        assert connection.response.headers.get_all("Set-Cookie") == ["a=1", "b=2; Path=/"]
        assert connection.response.headers.get_all("X-Seen") == ["yes"]
    assert (seen["path"], seen["query"]) == ("/handshake", "a=%20&a")
    assert seen["subprotocols"] == ["unknown", "chat", "echo"]
    fields = [(name, value) for name, value in seen["headers"]]
    assert [value for name, value in fields if name == "x-twice"] == ["1", "2"]
    assert ("cookie", "c=1; d=2") in fields
    assert ("origin", "https://elsewhere.example") in fields
    assert ("host", f"{ready.http[0]}:{ready.http[1]}") in fields
    assert ("x-forwarded-proto", "http") in fields
    assert not [name for name, _ in fields if name.startswith("rabbitbal-")]


@pytest.mark.parametrize(
    ("target", "status", "body"), [("/refuse", 403, None), ("/deny", 401, b"no ticket"), ("/fail", 500, None)]
)
def test_an_application_may_refuse_the_handshake(
    ready: Deployment, target: str, status: int, body: bytes | None
) -> None:
    """403, or an answer of its own; an error is 500."""
    with pytest.raises(InvalidStatus) as refused, opened(ready, target):
        pass
    assert refused.value.response.status_code == status
    if body is not None:
        assert refused.value.response.body == body
    assert refused.value.response.headers.get("Rabbitbal-Error") == ("app-error" if status == 500 else None)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_close_codes_travel_both_ways(ready: Deployment, key: str, code: int) -> None:
    """With their reasons."""
    with opened(ready, f"/close?code={code}&reason=wh%C3%BF") as connection:
        assert ending(connection) == (code, "wh\u00ff")
    with opened(ready, f"/echo?key={key}") as connection:
        connection.send("x")
        connection.recv(timeout=10)
        connection.close(code, "\u00e7a suffit")
    said = gone(ready, key)
    assert (said["code"], said["reason"]) == (code, "\u00e7a suffit")


def test_a_message_may_be_large_up_to_the_limit(ready: Deployment) -> None:
    """Above RABBITBAL_WEBSOCKET_LIMIT the connection is closed with 1009, whole, in fragments or compressed; 16 MiB is
    the default."""
    with opened(ready, "/echo", compression=None) as connection:
        for message in (bytes(range(256)) * 4096, b"\x01" * (16 * MIB)):
            connection.send(message)
            assert connection.recv(timeout=60) == message
    ready.change(RABBITBAL_WEBSOCKET_LIMIT=str(MIB))
    for compression in (None, "deflate"):
        with opened(ready, "/echo", compression=compression) as connection:
            connection.send(b"\x00" * MIB)
            assert connection.recv(timeout=30) == b"\x00" * MIB
            with contextlib.suppress(ConnectionClosed):
                connection.send(b"\x00" * (MIB + 1))
            assert ending(connection)[0] == 1009
    with opened(ready, "/echo", compression=None) as connection:
        with contextlib.suppress(ConnectionClosed):
            connection.send([b"\x00" * BLOCK] * 17)
        assert ending(connection)[0] == 1009


# --- bounds


@pytest.mark.timeout(400)
def test_a_client_that_does_not_read_stops_the_application(ready: Deployment, key: str) -> None:
    """Its sends wait; neither edge nor worker hoard what it would send. When the client reads at last, nothing is
    missing."""
    messages = 2048
    edge = ready.container("edge")
    before = memory(ready, edge)
    connection = raw_socket(ready.http, f"/flood?messages={messages}&key={key}", receive_buffer=BLOCK)
    worker = ready.runner(key)

    def sent() -> int:
        return max([line["messages"] for line in ready.events(worker, "sent") if line["key"] == key], default=0)

    stalled = settled(sent, "the application waits")
    grown = memory(ready, edge) - before
    print(f"stalled after {stalled * BLOCK / MIB:.0f} MiB; edge grew by {grown / MIB:.1f} MiB")
    assert stalled < messages // 2
    assert grown < 32 * MIB
    connection.settimeout(60)
    expected = messages * (len(binary(bytes(BLOCK)).encode()) - 4)  # a server's frame has no mask
    size = 0
    with connection:
        while size < expected and (part := connection.recv(BLOCK)):
            size += len(part)
        assert size >= expected
        assert eventually(lambda: sent() == messages, "the application is through")


@pytest.mark.timeout(400)
def test_an_application_that_does_not_receive_stops_its_client(ready: Deployment, key: str) -> None:
    """What the client may send is bounded, and so is what edge and worker hold of it."""
    edge, most = ready.container("edge"), 128 * MIB
    connection = raw_socket(ready.http, f"/deaf?key={key}")
    worker = ready.runner(key)
    before = {c.service: memory(ready, c) for c in (edge, worker)}
    message = binary(bytes(BLOCK)).encode()
    sent = 0

    def send() -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while sent < most:
                sent += connection.send(message[sent % len(message) :])

    connection.settimeout(None)
    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    taken = settled(lambda: sent, "the client waits")
    grown = {c.service: memory(ready, c) - before[c.service] for c in (edge, worker)}
    print(
        f"stalled after {taken / MIB:.1f} MiB; grew by { ({name: f'{n / MIB:.1f} MiB' for name, n in grown.items()}) }"
    )
    assert taken < most // 2
    assert max(grown.values()) < 48 * MIB
    assert get(ready.http, "/whoami").status == 200
    connection.shutdown(socket.SHUT_RDWR)  # wakes the thread
    sending.join()
    connection.close()
    # Nobody between here and there reads any more, so this application hears of nothing: it goes with its worker.
    ready.kill(worker)


def abort(connection: socket.socket) -> None:
    """RST, as from a machine that was switched off and on again."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.timeout(400)
def test_far_more_sockets_than_slots_are_open_at_once(ready: Deployment) -> None:
    """200 on two workers of four slots: each has its own echo, and ordinary requests still find a slot."""
    count = 200

    async def run() -> list[tuple[list[str | bytes], int | None]]:
        met = asyncio.Barrier(count + 1)

        async def one(number: int) -> tuple[list[str | bytes], int | None]:
            connection = await connect_async(url(ready, "/echo"), open_timeout=90, ping_interval=None, proxy=None)
            heard = []
            for turn in range(3):
                await connection.send(f"{number} in turn {turn}")
                heard.append(await connection.recv())
                await met.wait()
            await connection.close()
            return heard, connection.close_code

        tasks = [asyncio.create_task(one(number)) for number in range(count)]
        await met.wait()
        answers = await asyncio.gather(*(asyncio.to_thread(get, ready.http, "/whoami") for _ in range(8)))
        assert {answer.status for answer in answers} == {200}
        await met.wait()
        await met.wait()
        return await asyncio.gather(*tasks)

    outcomes = asyncio.run(run())
    assert outcomes == [([f"{n} in turn {turn}" for turn in range(3)], 1000) for n in range(count)]


# --- ends that nobody wished for


@pytest.mark.parametrize("how", ["close of the connection", "reset"])
def test_the_application_hears_that_its_client_is_gone(ready: Deployment, key: str, how: str) -> None:
    """By 1006 or the like, without waiting for anything."""
    connection = raw_socket(ready.http, f"/echo?key={key}")
    ready.runner(key)
    left = time.time()
    if how == "reset":
        abort(connection)
    else:
        connection.close()
    said = gone(ready, key)
    print(f"{how}: the application was told {1000 * (said['at'] - left):.0f} ms later: {said}")
    assert said["at"] - left < 5
    assert said["code"] in (1005, 1006)


@contextlib.contextmanager
def pair(deployment: Deployment, key: str) -> Iterator[list[tuple[ClientConnection, Container]]]:
    """Open connections on two different workers, with who has them."""
    found: dict[str, tuple[ClientConnection, Container]] = {}
    with contextlib.ExitStack() as stack:
        for number in range(20):
            connection = stack.enter_context(opened(deployment, f"/echo?key={key}-{number}"))
            worker = deployment.runner(f"{key}-{number}")
            found[worker.id] = connection, worker
            if len(found) == 2:
                break
        assert len(found) == 2, "one worker has all connections"
        yield list(found.values())


def test_a_worker_that_stops_says_goodbye(ready: Deployment, key: str) -> None:
    """1001, going away, to its own clients at once; then it leaves with status 0. Those of the other notice nothing."""
    with pair(ready, key) as ((leaving, worker), (staying, _)):
        ready.kill(worker, "SIGTERM")
        assert ending(leaving)[0] == 1001
        eventually(lambda: ready.look(worker).state == "exited", "the worker is gone", 20)
        assert ready.look(worker).exit_code == 0
        staying.send("still there")
        assert staying.recv(timeout=10) == "still there"


def test_a_killed_worker_breaks_its_clients_connections(ready: Deployment, key: str) -> None:
    """Without a close frame, as when any server dies, and soon; nobody is moved to another worker."""
    with pair(ready, key) as ((broken, worker), (staying, _)):
        ready.kill(worker)
        assert ending(broken) == (None, "")
        staying.send("still there")
        assert staying.recv(timeout=10) == "still there"
    assert {count for name, count in ready.runs().items() if name.startswith(key)} == {1}


# --- the same through an HTTP server


@pytest.mark.timeout(600)
def test_an_upstreams_websockets_are_as_good_as_without_us(
    ready: Deployment, server: Address, direct: Transcripts
) -> None:
    """RABBITBAL_UPSTREAM names uvicorn with the same application: bytes pass in both directions."""
    ready.change(RABBITBAL_APP="", RABBITBAL_UPSTREAM="http://upstream:9000")
    assert_as_good(ready, server, direct, "through a worker to uvicorn")
