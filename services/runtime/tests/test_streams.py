"""A body in pieces, at both ends: order, credit, failure, and what is left when somebody gives up."""

import asyncio
import time
from collections.abc import Callable

import pytest

from rabbitbal.runtime.streams import AHEAD, Broken, Inlet, Outlet
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.flow import CHUNK, FIRST_WINDOW, OVERHEAD, WINDOW, cost
from rabbitbal.wire.reasons import Reason

PLENTY = 1 << 40


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.001)


async def turns(number: int = 5) -> None:
    """Let every task that can run do so."""
    for _ in range(number):
        await asyncio.sleep(0)


class Wire:
    """Takes messages. ``hold`` keeps their confirms back, ``errors`` are raised by sequence number."""

    def __init__(self, *, hold: bool = False) -> None:
        self.sent: list[tuple[int, bytes, bool, Reason | None]] = []
        self.errors: dict[int, Exception] = {}
        self.cancelled = 0
        self.confirmed = asyncio.Event()
        if not hold:
            self.confirmed.set()

    async def send(self, sequence: int, payload: bytes, more: bool, reason: Reason | None) -> None:
        self.sent.append((sequence, payload, more, reason))
        if sequence in self.errors:
            raise self.errors[sequence]
        try:
            await self.confirmed.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    @property
    def body(self) -> bytes:
        return b"".join(payload for _, payload, _, _ in self.sent)

    @property
    def sequences(self) -> list[int]:
        return [sequence for sequence, *_ in self.sent]


async def write(outlet: Outlet, pieces: int, *, end: bool = False) -> None:
    for _ in range(pieces):
        await outlet.write(b"a")
    if end:
        await outlet.end()


# --- sending


async def test_a_body_is_sent_in_order_in_chunks_and_ended() -> None:
    wire = Wire()
    outlet = Outlet(wire.send, PLENTY)
    data = bytes(range(256)) * 600
    await outlet.write(data)
    await outlet.write(b"end")
    await outlet.end()
    assert wire.body == data + b"end"
    assert wire.sequences == list(range(1, len(wire.sent) + 1))
    assert max(len(payload) for _, payload, _, _ in wire.sent) == CHUNK
    assert [more for _, _, more, _ in wire.sent] == [True] * (len(wire.sent) - 1) + [False]


async def test_an_empty_write_sends_nothing() -> None:
    """An empty piece would say nothing and cost credit."""
    wire = Wire()
    outlet = Outlet(wire.send, PLENTY)
    await outlet.write(b"")
    await outlet.end(Reason.APP_ERROR)
    assert wire.sent == [(1, b"", False, Reason.APP_ERROR)]


async def test_a_writer_waits_for_credit_and_sends_what_it_gets() -> None:
    wire = Wire()
    outlet = Outlet(wire.send, OVERHEAD + 2)
    writing = asyncio.ensure_future(outlet.write(b"abcdef"))
    await turns()
    assert (wire.body, writing.done()) == (b"ab", False)
    outlet.grant(OVERHEAD + 2)
    await turns()
    assert (wire.body, writing.done()) == (b"ab", False)
    outlet.grant(2 * OVERHEAD + 3)
    await until(lambda: wire.body == b"abc")
    outlet.grant(PLENTY)
    await asyncio.wait_for(writing, 5)
    assert wire.body == b"abcdef"


async def test_a_bounded_number_of_messages_is_on_its_way_at_once() -> None:
    """They leave in order, and `end` waits for the confirms of all."""
    wire = Wire(hold=True)
    outlet = Outlet(wire.send, PLENTY)

    async def work() -> None:
        for number in range(10):
            await outlet.write(b"%d" % number)
        await outlet.end()

    working = asyncio.ensure_future(work())
    await turns(50)
    assert (wire.sequences, working.done()) == (list(range(1, AHEAD + 1)), False)
    wire.confirmed.set()
    await asyncio.wait_for(working, 5)
    assert (wire.sequences, wire.body) == (list(range(1, 12)), b"0123456789")


async def test_the_end_waits_for_every_confirm() -> None:
    wire = Wire(hold=True)
    outlet = Outlet(wire.send, PLENTY)
    await outlet.write(b"a")
    ending = asyncio.ensure_future(outlet.end())
    await turns()
    assert (wire.sequences, ending.done()) == ([1, 2], False)
    wire.confirmed.set()
    await asyncio.wait_for(ending, 5)


@pytest.mark.parametrize("failing", [1, 3, 4])
async def test_an_error_of_a_message_comes_out_at_the_end_at_the_latest(failing: int) -> None:
    """Also that of the last message."""
    wire = Wire()
    wire.errors[failing] = ConnectionResetError("gone")
    outlet = Outlet(wire.send, PLENTY)
    with pytest.raises(ConnectionResetError):
        await write(outlet, 3, end=True)


async def test_an_error_comes_out_of_a_long_body_soon() -> None:
    """Not only at its end, which may never come."""
    wire = Wire()
    wire.errors[1] = ConnectionResetError("gone")
    outlet = Outlet(wire.send, PLENTY)
    with pytest.raises(ConnectionResetError):
        await write(outlet, AHEAD + 1)
    assert len(wire.sent) <= AHEAD


async def test_a_writer_that_waits_for_credit_hears_of_an_error() -> None:
    """Nobody grants credit for what did not arrive."""
    wire = Wire()
    wire.errors[1] = ConnectionResetError("gone")
    outlet = Outlet(wire.send, OVERHEAD + 1)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(outlet.write(b"ab"), 5)


async def test_a_writer_that_is_cancelled_while_it_waits_has_used_nothing_up() -> None:
    """The end that tells why still follows, without a gap."""
    wire = Wire()
    outlet = Outlet(wire.send, OVERHEAD + 1)
    writing = asyncio.ensure_future(outlet.write(b"ab"))
    await turns()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert outlet.next == 2
    await outlet.end(Reason.WORKER_LOST)
    assert wire.sent == [(1, b"a", True, None), (2, b"", False, Reason.WORKER_LOST)]


async def test_abandoned_messages_are_cancelled_and_their_errors_looked_at() -> None:
    """An error that nobody asked for would be a complaint of the loop."""
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    wire = Wire(hold=True)
    wire.errors[1] = ConnectionResetError("gone")
    outlet = Outlet(wire.send, PLENTY)
    await outlet.write(b"a")
    await outlet.write(b"b")
    await turns()
    outlet.abandon()
    await turns()
    del outlet
    assert (wire.cancelled, complaints) == (1, [])


# --- receiving


class Reader:
    def __init__(self, window: int = WINDOW) -> None:
        self.granted: list[int] = []
        self.inlet = Inlet(self.granted.append, window)

    async def all(self) -> bytes:
        body = b""
        while piece := await asyncio.wait_for(self.inlet.read(), 5):
            body += piece
        return body


async def test_pieces_are_read_in_order_and_the_end_ever_after() -> None:
    reader = Reader()
    for sequence, piece in enumerate((b"ab", b"", b"c"), 1):
        reader.inlet.receive(sequence, piece, more=True)
    assert not reader.inlet.ended
    reader.inlet.receive(4, b"d", more=False)
    assert (reader.inlet.ended, await reader.all(), await reader.inlet.read()) == (True, b"abcd", b"")


async def test_a_reader_waits_for_a_piece() -> None:
    reader = Reader()
    reading = asyncio.ensure_future(reader.inlet.read())
    await turns()
    reader.inlet.receive(1, b"", more=True)
    await turns()
    assert not reading.done()
    reader.inlet.receive(2, b"a", more=True)
    assert await asyncio.wait_for(reading, 5) == b"a"


async def test_credit_goes_out_as_the_reader_reads() -> None:
    """Not as pieces come in."""
    size = cost(b"a" * 100)
    reader = Reader(4 * size)
    assert reader.inlet.credit == 4 * size
    for sequence in range(1, 5):
        reader.inlet.receive(sequence, b"a" * 100, more=True)
    assert reader.granted == []
    for _ in range(4):
        await reader.inlet.read()
    assert reader.granted == [6 * size, 8 * size]


async def test_a_wider_window_is_granted_at_once() -> None:
    reader = Reader(FIRST_WINDOW)
    reader.inlet.widen(WINDOW)
    assert (reader.granted, reader.inlet.credit) == ([WINDOW], WINDOW)


@pytest.mark.parametrize(
    ("sequence", "piece"),
    [(None, b"b"), (1, b"b"), (3, b"b"), (2, b"b" * (CHUNK + 1)), (2, b"b" * 2000)],
    ids=["none", "duplicate", "gap", "too large", "overdrawn"],
)
async def test_a_message_that_does_not_continue_the_body_breaks_it(sequence: int | None, piece: bytes) -> None:
    """What came before can be read."""
    reader = Reader(2000)
    reader.inlet.receive(1, b"a", more=True)
    with pytest.raises(WireError):
        reader.inlet.receive(sequence, piece, more=True)
    assert await reader.inlet.read() == b"a"
    with pytest.raises(Broken) as broken:
        await reader.inlet.read()
    assert broken.value.reason is Reason.BAD_RESPONSE


async def test_the_last_piece_may_tell_why_it_is_the_last() -> None:
    """Then the body is not whole."""
    reader = Reader()
    reader.inlet.receive(1, b"a", more=False, reason=Reason.APP_ERROR)
    assert (reader.inlet.ended, await reader.inlet.read()) == (True, b"a")
    for _ in range(2):
        with pytest.raises(Broken) as broken:
            await reader.inlet.read()
        assert broken.value.reason is Reason.APP_ERROR


async def test_the_first_failure_counts() -> None:
    """And wakes who waits."""
    reader = Reader()
    reading = asyncio.ensure_future(reader.inlet.read())
    await turns()
    reader.inlet.fail(Broken("one", Reason.WORKER_LOST))
    reader.inlet.fail(Broken("two", Reason.CLIENT_GONE))
    with pytest.raises(Broken, match="one"):
        await asyncio.wait_for(reading, 5)


async def test_a_failure_behind_the_end_is_none() -> None:
    """The body is whole, read or not."""
    reader = Reader()
    reader.inlet.receive(1, b"a", more=False)
    reader.inlet.fail(Broken("late"))
    assert await reader.all() == b"a"


async def test_what_a_lost_sender_had_sent_can_still_complete_the_body() -> None:
    """Its last piece may be on its way when its loss is known."""
    reader = Reader()
    reader.inlet.fail(Broken("the sender is gone"))
    reader.inlet.receive(1, b"a", more=False)
    assert await reader.all() == b"a"


async def test_an_outlet_and_an_inlet_pass_a_body_through_a_small_window() -> None:
    """Neither overdraws, neither waits for ever."""
    inlet: Inlet

    async def send(sequence: int, payload: bytes, more: bool, reason: Reason | None) -> None:
        await asyncio.sleep(0)
        inlet.receive(sequence, payload, more=more, reason=reason)

    outlet = Outlet(send, 1000)
    inlet = Inlet(outlet.grant, 1000)
    data = bytes(range(256)) * 100

    async def write() -> None:
        for start in range(0, len(data), 5000):
            await outlet.write(data[start : start + 5000])
        await outlet.end()

    writing = asyncio.ensure_future(write())
    body = b""
    while piece := await asyncio.wait_for(inlet.read(), 5):
        body += piece
    await writing
    assert body == data
