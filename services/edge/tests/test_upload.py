"""An upload: what goes with the head, what follows, and what can be had a second time."""

import asyncio

import pytest

from rabbitbal.edge import upload as module
from rabbitbal.edge.spool import Spool, SpoolSpace
from rabbitbal.edge.upload import BodyTooLarge, ClientGone, Upload
from rabbitbal.wire.flow import INLINE
from tests.edge_bench import Client, turns, until

NEVER = 1 << 30


class Begun:
    """An upload, its client, and what was held of it."""

    def __init__(self, declared: int | None, limit: int = NEVER) -> None:
        self.client = Client()
        self.upload = Upload(self.client.receive, declared, limit)
        self.held = 0

    def hold(self, size: int) -> None:
        self.held += size

    async def begin(self) -> tuple[bytes, bool]:
        return await asyncio.wait_for(self.upload.begin(self.hold), 5)

    async def rest(self) -> list[bytes]:
        async with asyncio.timeout(5):
            return [piece async for piece in self.upload.pieces()]


@pytest.mark.parametrize("declared", [0, 3, INLINE, None])
async def test_a_body_that_is_there_at_once_goes_with_the_head(declared: int | None) -> None:
    begun = Begun(declared)
    body = b"a" * (3 if declared is None else declared)
    begun.client.send(body, more=False)
    assert (await begun.begin(), begun.held, begun.upload.repeatable) == ((body, False), len(body), False)


async def test_a_small_body_of_known_length_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes: its head would be of no use to a worker yet."""
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    begun = Begun(6)
    begun.client.send(b"abc")
    beginning = asyncio.ensure_future(begun.begin())
    await until(lambda: begun.client.asked == 2)
    await turns(20)
    assert not beginning.done()
    begun.client.send(b"def", more=False)
    assert await beginning == (b"abcdef", False)


async def test_a_large_body_of_known_length_goes_on_with_its_first_bytes() -> None:
    """The head goes to a worker while the client sends."""
    begun = Begun(INLINE + 1)
    begun.client.send(b"abc")
    assert (await begun.begin(), begun.client.asked) == ((b"abc", True), 1)
    begun.client.send(b"def")
    begun.client.send(b"g", more=False)
    assert await begun.rest() == [b"def", b"g"]


async def test_a_body_of_unknown_length_gets_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then what is there goes on; nothing that comes later is lost."""
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    begun = Begun(None)
    begun.client.send(b"abc")
    assert await begun.begin() == (b"abc", True)
    begun.client.send(b"def", more=False)
    assert await begun.rest() == [b"def"]


async def test_a_body_of_which_nothing_comes_goes_on_without_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    begun = Begun(None)
    assert await begun.begin() == (b"", True)
    begun.client.send(b"", more=False)
    assert await begun.rest() == []


async def test_a_body_of_unknown_length_that_is_large_goes_on_as_soon_as_that_is_known() -> None:
    begun = Begun(None)
    for _ in range(3):
        begun.client.send(b"a" * (INLINE // 2))
    assert (await begun.begin(), begun.client.asked) == ((b"a" * INLINE, True), 2)


async def test_what_does_not_fit_inline_follows() -> None:
    """Also where it was the last: nothing more is asked for then."""
    begun = Begun(INLINE + 5)
    begun.client.send(b"a" * INLINE + b"12345", more=False)
    assert await begun.begin() == (b"a" * INLINE, True)
    assert (await begun.rest(), begun.client.asked) == ([b"12345"], 1)


@pytest.mark.parametrize(("declared", "sizes"), [(None, [6, 5]), (None, [11]), (NEVER, [11])])
async def test_a_body_over_the_limit_is_refused_at_the_byte(declared: int | None, sizes: list[int]) -> None:
    begun = Begun(declared, limit=10)
    for size in sizes:
        begun.client.send(b"a" * size)
    with pytest.raises(BodyTooLarge):
        await begun.begin()


async def test_a_body_of_just_the_limit_is_taken() -> None:
    begun = Begun(None, limit=10)
    begun.client.send(b"a" * 10, more=False)
    assert await begun.begin() == (b"a" * 10, False)


async def test_a_body_may_turn_out_too_large_in_its_middle() -> None:
    begun = Begun(NEVER, limit=10)
    begun.client.send(b"a" * 6)
    await begun.begin()
    begun.client.send(b"a" * 5)
    with pytest.raises(BodyTooLarge):
        await begun.rest()


@pytest.mark.parametrize("declared", [5, NEVER, None])
async def test_a_client_may_leave_before_its_first_byte(declared: int | None) -> None:
    begun = Begun(declared)
    begun.client.leave()
    with pytest.raises(ClientGone):
        await begun.begin()


async def test_a_client_may_leave_in_the_middle() -> None:
    """What it sent is had first."""
    begun = Begun(NEVER)
    begun.client.send(b"a")
    await begun.begin()
    begun.client.send(b"b")
    begun.client.leave()
    pieces = begun.upload.pieces()
    assert await anext(pieces) == b"b"
    with pytest.raises(ClientGone):
        await anext(pieces)


async def test_what_may_not_be_held_ends_it() -> None:
    begun = Begun(NEVER)
    begun.client.send(b"abc")

    def refuse(size: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await begun.upload.begin(refuse)


# --- a second time


async def kept(space: SpoolSpace, first: bytes = b"a") -> Begun:
    begun = Begun(NEVER)
    begun.client.send(first)
    await begun.begin()
    begun.upload.keep(Spool(space))
    return begun


async def test_a_body_that_is_kept_can_be_had_again_from_its_start() -> None:
    """Also its part that came with the first bytes and did not fit inline; as often as one likes."""
    begun = await kept(SpoolSpace(NEVER, NEVER), b"a" * INLINE + b"rest")
    begun.client.send(b"one" * 50_000)
    begun.client.send(b"two", more=False)
    for _ in range(3):
        assert b"".join(await begun.rest()) == b"rest" + b"one" * 50_000 + b"two"
        assert begun.upload.repeatable
    begun.upload.close()


async def test_a_second_start_goes_on_where_the_first_was_given_up() -> None:
    """Nothing is lost of what was being read, or was being sent, at that moment."""
    begun = await kept(SpoolSpace(NEVER, NEVER))
    begun.client.send(b"b")
    first = begun.upload.pieces()
    assert await anext(first) == b"b"
    reading = asyncio.ensure_future(anext(first))
    await until(lambda: begun.client.asked == 3)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    begun.client.send(b"c")
    begun.client.send(b"d", more=False)
    assert await begun.rest() == [b"b", b"c", b"d"]


async def test_a_body_past_the_bound_goes_on_and_cannot_be_had_again() -> None:
    space = SpoolSpace(100, 10)
    begun = await kept(space)
    begun.client.send(b"b" * 10)
    begun.client.send(b"c", more=False)
    pieces = begun.upload.pieces()
    assert (await anext(pieces), begun.upload.repeatable) == (b"b" * 10, True)
    assert (await anext(pieces), begun.upload.repeatable) == (b"c", False)
    assert [piece async for piece in pieces] == []
    assert space.take(100)


async def test_a_first_part_past_the_bound_is_not_lost() -> None:
    begun = await kept(SpoolSpace(100, 10), b"a" * INLINE + b"b" * 11)
    begun.client.send(b"c", more=False)
    assert not begun.upload.repeatable
    assert await begun.rest() == [b"b" * 11, b"c"]


async def test_its_space_is_given_back_at_its_end() -> None:
    space = SpoolSpace(100, 100)
    begun = await kept(space)
    begun.client.send(b"b" * 60)
    assert await anext(begun.upload.pieces()) == b"b" * 60
    assert not space.take(41)
    begun.upload.close()
    begun.upload.close()
    assert space.take(100)


async def test_an_upload_is_at_hand_when_all_of_it_is_kept() -> None:
    """Not before its last byte, and not when it is closed; closed twice, it gives back once."""
    space = SpoolSpace(20, 20)
    begun = Begun(NEVER)
    begun.client.send(b"abc")
    await begun.begin()
    begun.upload.keep(Spool(space))
    assert begun.upload.kept is None
    begun.client.send(b"def", more=False)
    assert await begun.rest() == [b"def"]
    kept = begun.upload.kept
    assert kept is not None
    assert (kept.size, kept.read(0, 10)) == (3, b"def")
    kept.share()
    begun.upload.close()
    begun.upload.close()
    assert (begun.upload.kept, kept.whole) == (None, True)
    kept.close()
    assert space.take(20)
