"""The spool: what it keeps can be read again, it stays within its bounds, and a full disk is no end of an upload."""

import errno
from pathlib import Path
from typing import Any

import pytest

from rabbitbal.edge.spool import IN_MEMORY, Spool, SpoolSpace


def text(spool: Spool, size: int) -> bytes:
    parts = []
    position = 0
    while position < spool.size:
        parts.append(spool.read(position, size))
        position += len(parts[-1])
    return b"".join(parts)


@pytest.mark.parametrize("length", [0, 1, IN_MEMORY, IN_MEMORY + 1, 5 * IN_MEMORY])
def test_what_is_kept_can_be_read_again_and_again(tmp_path: Path, length: int) -> None:
    """In memory and in a file, with other pieces than it came in, and also between two of them."""
    spool = Spool(SpoolSpace(1 << 20, 1 << 20, tmp_path))
    data = bytes(number % 251 for number in range(length))
    for start in range(0, length, 7000):
        spool.append(data[start : start + 7000])
        assert spool.read(0, 3) == data[:3]
    assert (spool.whole, spool.size, text(spool, 1000), text(spool, 65536)) == (True, length, data, data)
    spool.close()


def test_nothing_is_left_in_its_directory(tmp_path: Path) -> None:
    """Not even while it is in use: the file has no name."""
    spool = Spool(SpoolSpace(1 << 20, 1 << 20, tmp_path))
    spool.append(b"a" * (2 * IN_MEMORY))
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_past_its_own_bound_it_keeps_nothing_and_gives_its_space_back() -> None:
    space = SpoolSpace(100, 10)
    spool, other = Spool(space), Spool(space)
    spool.append(b"a" * 10)
    assert spool.whole
    spool.append(b"a")
    assert not spool.whole
    assert space.take(100)
    space.give_back(100)
    spool.append(b"a")
    other.append(b"a" * 10)
    assert (spool.whole, other.whole) == (False, True)


def test_all_together_keep_no_more_than_there_is_space_for() -> None:
    """Who comes too late keeps nothing; who leaves makes room."""
    space = SpoolSpace(15, 10)
    first, second, third = Spool(space), Spool(space), Spool(space)
    first.append(b"a" * 10)
    second.append(b"a" * 5)
    second.append(b"a")
    assert (first.whole, second.whole) == (True, False)
    first.close()
    third.append(b"a" * 10)
    assert third.whole


def test_space_is_given_back_once() -> None:
    """However often it is closed."""
    space = SpoolSpace(10, 10)
    spool = Spool(space)
    spool.append(b"a" * 10)
    spool.close()
    spool.close()
    assert space.take(10)
    assert not space.take(1)


def test_a_directory_that_is_not_there_costs_the_repeat_and_nothing_else(tmp_path: Path) -> None:
    space = SpoolSpace(1 << 20, 1 << 20, tmp_path / "missing")
    spool = Spool(space)
    spool.append(b"a" * IN_MEMORY)
    assert spool.whole
    spool.append(b"a")
    assert not spool.whole
    assert space.take(1 << 20)


class FullDisk:
    """Takes ``room`` bytes; like a real one, it is full also for what was buffered and is written at the close."""

    def __init__(self, room: int) -> None:
        self._room = room

    def seek(self, *_: int) -> None:
        """Anywhere."""

    def write(self, piece: bytes) -> None:
        self._room -= len(piece)

    def flush(self) -> None:
        if self._room < 0:
            raise OSError(errno.ENOSPC, "no space")

    close = flush


def test_a_full_disk_costs_the_repeat_and_nothing_else() -> None:
    space = SpoolSpace(100, 100)
    spool = Spool(space)
    full: Any = FullDisk(5)
    spool._file = full
    spool.append(b"a" * 5)
    assert spool.whole
    spool.append(b"a")
    assert not spool.whole
    spool.append(b"a")
    spool.close()
    assert space.take(100)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_device_that_is_really_full_costs_the_repeat_and_nothing_else() -> None:
    """What the buffer could not write must not come up again at the close."""
    space = SpoolSpace(100, 100)
    spool = Spool(space)
    spool._file = Path("/dev/full").open("r+b")  # noqa: SIM115 - the spool closes it
    spool.append(b"a")
    assert not spool.whole
    assert space.take(100)


def test_what_is_shared_is_kept_until_the_last_one_closes_it() -> None:
    space = SpoolSpace(10, 10)
    spool = Spool(space)
    spool.append(b"a" * 10)
    spool.share()
    spool.close()
    assert (spool.whole, spool.read(0, 100), space.take(1)) == (True, b"a" * 10, False)
    spool.close()
    assert not spool.whole
    assert space.take(10)


def test_what_is_too_large_is_told_from_what_there_is_no_room_for() -> None:
    """The first is the client's affair, the second is not."""
    space = SpoolSpace(15, 10)
    large, small = Spool(space), Spool(space)
    large.append(b"a" * 11)
    assert (large.whole, large.too_large) == (False, True)
    assert space.take(10)
    small.append(b"a" * 6)
    assert (small.whole, small.too_large) == (False, False)
