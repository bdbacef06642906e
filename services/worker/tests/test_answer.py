"""The response to one request: the checks of its framing, and when it leaves in how many messages."""

import asyncio
from typing import Any

import pytest

from rabbitbal.wire.fields import Fields
from rabbitbal.wire.flow import CHUNK, INLINE, OVERHEAD
from rabbitbal.wire.message import MAX_HEAD, Request
from rabbitbal.wire.reasons import Reason
from rabbitbal.worker.framing import Framing
from rabbitbal.worker.targets import BadResponse
from tests.harness import Recorder, until

GET = Request("GET", b"/")
HEAD = Request("HEAD", b"/")
UPGRADE = Request("GET", b"/", upgrade="websocket")
TEXT: Fields = [(b"Content-Type", b"text/plain")]


def length(number: int) -> tuple[bytes, bytes]:
    return (b"Content-Length", b"%d" % number)


async def answered(request: Request, status: int, fields: Fields, *chunks: bytes) -> Recorder:
    answer = Recorder(request)
    await answer.start(status, fields)
    for chunk in chunks:
        await answer.write(chunk)
    await answer.finish()
    return answer


async def left(answer: Recorder, body: bytes = b"") -> None:
    await until(lambda: answer.head is not None and answer.body == body)


# --- whole responses


async def test_what_is_finished_at_once_is_one_message_with_its_length() -> None:
    """However many writes it had."""
    answer = await answered(GET, 200, TEXT, b"a", b"", b"bc")
    assert answer.head is not None
    assert (answer.head.status, answer.head.fields, answer.head.body) == (200, [*TEXT, length(3)], b"abc")
    assert (answer.pieces, answer.complete, answer.finished, answer.reason) == ([b"abc"], True, True, None)


async def test_a_declared_length_stays_as_it_is() -> None:
    """Where it was declared, too: among the other fields."""
    answer = await answered(GET, 200, [(b"content-LENGTH", b"3"), *TEXT], b"abc")
    assert answer.head is not None
    assert answer.head.fields == [(b"content-LENGTH", b"3"), *TEXT]


async def test_a_response_without_a_body_says_so() -> None:
    """Or its end would not be known."""
    answer = await answered(GET, 200, [])
    assert answer.head is not None
    assert (answer.head.fields, answer.pieces, answer.complete) == ([length(0)], [], True)


@pytest.mark.parametrize("size", [INLINE, INLINE + 1, 5 * CHUNK + 7])
async def test_a_large_body_in_one_write_has_its_length(size: int) -> None:
    """The first of it comes with the head, the rest in pieces."""
    body = bytes(range(251)) * (size // 251 + 1)
    answer = await answered(GET, 200, [], body[:size])
    assert answer.head is not None
    assert (answer.head.fields, answer.body == body[:size], answer.complete) == ([length(size)], True, True)
    assert max(len(piece) for piece in answer.pieces) <= CHUNK


@pytest.mark.parametrize(
    ("request_", "status", "fields", "sent"),
    [
        (HEAD, 200, [], []),
        (HEAD, 200, [length(99)], [length(99)]),
        (GET, 304, [length(99)], [length(99)]),
        (GET, 204, [], []),
        (GET, 204, [length(0)], []),
        (HEAD, 204, [length(7)], []),
    ],
)
async def test_a_response_that_has_no_body_sends_none(
    request_: Request, status: int, fields: Fields, sent: Fields
) -> None:
    """What is written is dropped; a length is that of another response, and 204 has none."""
    answer = await answered(request_, status, [*fields, *TEXT], b"dropped", b"x" * 3 * CHUNK)
    assert answer.head is not None
    assert (answer.head.fields, answer.pieces, answer.complete) == ([*sent, *TEXT], [], True)


async def test_hop_by_hop_fields_stay_here() -> None:
    """Those that Connection names, as well."""
    fields = [(b"Connection", b"X-Mine"), (b"X-Mine", b"1"), (b"Transfer-Encoding", b"chunked"), *TEXT]
    answer = await answered(GET, 200, fields, b"a")
    assert answer.head is not None
    assert answer.head.fields == [*TEXT, length(1)]


# --- misuse


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (99, []),
        (100, []),
        (101, []),
        (600, []),
        (200, [(b"a b", b"")]),
        (200, [(b"A", b"\r\n")]),
        (200, [length(1), length(2)]),
        (200, [(b"Content-Length", b"-1")]),
        (200, [(b"A", b"x" * MAX_HEAD)]),
    ],
)
async def test_a_head_that_cannot_be_sent_is_refused(status: int, fields: Fields) -> None:
    """Before anything has left; another may be started."""
    answer = Recorder(GET)
    with pytest.raises(BadResponse):
        await answer.start(status, fields)
    assert not answer.started
    await answer.start(200, [])
    await answer.finish()


async def test_calls_out_of_order_are_refused() -> None:
    """Each is named."""
    answer = Recorder(GET)
    with pytest.raises(BadResponse, match="before the response was started"):
        await answer.write(b"a")
    with pytest.raises(BadResponse, match="before it was started"):
        await answer.finish()
    await answer.start(200, [])
    with pytest.raises(BadResponse, match="second time"):
        await answer.start(200, [])
    await answer.finish()
    for call in (answer.start(200, []), answer.write(b"a"), answer.finish()):
        with pytest.raises(BadResponse, match="complete already"):
            await call


async def test_a_body_is_as_long_as_declared() -> None:
    """Too long is refused when it is written, too short at the end; in both cases nothing has left."""
    answer = Recorder(GET)
    await answer.start(200, [length(3)])
    await answer.write(b"ab")
    with pytest.raises(BadResponse, match="Content-Length is 3 but the body has 2"):
        await answer.finish()
    with pytest.raises(BadResponse, match="Content-Length is 3 but the body has 4"):
        await answer.write(b"cd")
    assert not answer.fail(Reason.BAD_RESPONSE)
    assert answer.head is None


def test_the_largest_head_that_passes_can_be_encoded() -> None:
    """No response fails behind these checks."""
    from rabbitbal.wire.message import Response, encode_response

    framing = Framing(GET)
    size = MAX_HEAD
    while True:
        try:
            framing.start(431, [(b"A", b"x" * size)])
            break
        except BadResponse:
            size -= 1
    framing.count(10**17)
    framing.finish()
    encode_response(Response(431, framing.fields(complete=True), b""), more=True)


# --- streams


async def test_a_head_leaves_when_the_application_goes_idle() -> None:
    """No body was written, and the client sees that something is going on."""
    answer = Recorder(GET)
    await answer.start(200, TEXT)
    await left(answer)
    assert answer.head is not None
    assert (answer.head.fields, answer.complete) == (TEXT, False)
    await answer.finish()
    assert (answer.pieces, answer.complete, answer.reason) == ([], True, None)


async def test_pieces_leave_as_they_are_written() -> None:
    """In their order; what is written together leaves together."""
    answer = Recorder(GET)
    await answer.start(200, [])
    await answer.write(b"one")
    await left(answer, b"one")
    await answer.write(b"two")
    await left(answer, b"onetwo")
    await answer.write(b"th")
    await answer.write(b"ree")
    await answer.finish()
    assert (answer.pieces, answer.complete) == ([b"one", b"two", b"three"], True)


async def test_a_streamed_response_keeps_its_declared_length() -> None:
    """The client can tell a short body by it."""
    answer = Recorder(GET)
    await answer.start(200, [length(2)])
    await answer.write(b"a")
    await left(answer, b"a")
    assert answer.head is not None
    assert answer.head.fields == [length(2)]
    with pytest.raises(BadResponse, match="the body has 3 bytes or more"):
        await answer.write(b"bc")
    assert answer.fail(Reason.BAD_RESPONSE)
    await answer.sent()
    assert (answer.body, answer.complete, answer.reason) == (b"a", True, Reason.BAD_RESPONSE)


async def test_who_writes_waits_for_the_client() -> None:
    """One chunk is held beyond the credit; the rest stays with the application."""
    answer = Recorder(GET, credit=0)
    await answer.start(200, [])

    async def application() -> None:
        for _ in range(20):
            await answer.write(b"x" * CHUNK)
        await answer.finish()

    writing = asyncio.ensure_future(application())
    await until(lambda: answer.pieces)
    credit = 0
    while not answer.complete:
        before = len(answer.body)
        credit += CHUNK + OVERHEAD
        answer.grant(credit)
        await until(lambda before=before: answer.complete or len(answer.body) > before)  # type: ignore[misc]
        # What the client was sent, one chunk with the pump and one in the buffer, and no more was taken.
        assert answer._framing._size <= len(answer.body) + 3 * CHUNK
        assert len(answer.body) <= INLINE + credit
    await writing
    assert answer.body == b"x" * 20 * CHUNK


async def test_an_application_that_fails_in_a_stream_ends_it_with_a_reason() -> None:
    """What it wrote before is sent."""
    answer = Recorder(GET)
    await answer.start(200, [])
    await left(answer)
    await answer.write(b"last words")
    assert answer.fail(Reason.APP_ERROR)
    await answer.sent()
    assert (answer.body, answer.complete, answer.reason) == (b"last words", True, Reason.APP_ERROR)


async def test_an_application_that_fails_before_its_stream_has_sent_nothing() -> None:
    """Something else can be answered."""
    answer = Recorder(GET)
    await answer.start(200, [])
    await answer.write(b"half")
    assert not answer.fail(Reason.APP_ERROR)
    with pytest.raises(ConnectionError):
        await answer.write(b"more")
    assert answer.head is None


async def test_an_application_that_fails_behind_its_response_changes_nothing() -> None:
    """It is complete."""
    answer = await answered(GET, 200, [], b"abc")
    assert answer.fail(Reason.APP_ERROR)
    await answer.sent()
    assert (answer.complete, answer.reason) == (True, None)


@pytest.mark.parametrize("size", [1, 10 * CHUNK])
async def test_who_waits_is_told_when_nobody_takes_it_any_longer(size: int) -> None:
    """A thread that writes cannot be cancelled; an OSError is what it expects."""
    answer = Recorder(GET, credit=0)
    await answer.start(200, [])
    await left(answer)
    await answer.write(b"x" * size)
    waiting: Any = asyncio.ensure_future(answer.finish() if size == 1 else answer.write(b"y"))
    await asyncio.wait({waiting}, timeout=0.01)
    assert not waiting.done()
    answer.abandon()
    with pytest.raises(OSError, match="nobody takes the response"):
        await waiting
    with pytest.raises(OSError, match="nobody takes the response"):
        await answer.write(b"z")
    assert answer._pump is not None
    await asyncio.wait({answer._pump})


async def test_a_finish_that_is_cancelled_sends_all_the_same() -> None:
    """A response is not half a message because the application waited with a timeout of its own."""
    answer = Recorder(GET)
    await answer.start(200, [])
    finishing = asyncio.ensure_future(answer.finish())
    await asyncio.sleep(0)
    finishing.cancel()
    await asyncio.wait({finishing})
    await answer.sent()
    assert answer.complete


async def test_breaking_off_ends_the_stream_for_the_edge() -> None:
    """With a reason, without waiting for credit."""
    answer = Recorder(GET, credit=0)
    await answer.start(200, [])
    await left(answer)
    await answer.write(b"never sent")
    await answer.break_off(Reason.WORKER_LOST)
    assert (answer.body, answer.complete, answer.reason) == (b"", True, Reason.WORKER_LOST)


# --- upgrades


async def test_an_upgrade_is_answered_with_101_and_bytes() -> None:
    """The head leaves at once, without a length, and what follows is not counted."""
    answer = Recorder(UPGRADE)
    await answer.start(101, [(b"Sec-WebSocket-Accept", b"x"), length(0), (b"Upgrade", b"websocket")])
    await left(answer)
    assert answer.head is not None
    assert (answer.head.status, answer.head.fields) == (101, [(b"Sec-WebSocket-Accept", b"x")])
    await answer.write(b"\x81\x00")
    await answer.finish()
    assert (answer.body, answer.complete) == (b"\x81\x00", True)


async def test_an_upgrade_that_ends_at_once_still_has_an_end_of_its_own() -> None:
    """Head and end are two messages: 101 never comes with a whole body."""
    answer = await answered(UPGRADE, 101, [], b"a")
    assert answer.head is not None
    assert (answer.head.status, answer.body, answer.complete) == (101, b"a", True)


async def test_an_upgrade_may_be_declined() -> None:
    """By an ordinary response."""
    answer = await answered(UPGRADE, 403, [], b"no")
    assert answer.head is not None
    assert (answer.head.status, answer.head.fields, answer.complete) == (403, [length(2)], True)
