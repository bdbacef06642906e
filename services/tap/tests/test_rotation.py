"""A file of lines that is replaced before it is too long, on a disk that may be full, gone, or somebody else's."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rabbitbal.tap.rotation import RotatedFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def lines(first: int, last: int) -> list[bytes]:
    return [b"%06d\n" % number for number in range(first, last)]


def everything(path: Path) -> list[bytes]:
    """Of all files, oldest first."""
    found = sorted(path.parent.glob("access.log*"), key=lambda p: -int(p.suffix[1:]) if p.suffix != ".log" else 1)
    return [line for file in found for line in file.read_bytes().splitlines(keepends=True)]


def test_no_file_is_longer_than_the_limit_and_no_line_is_cut(path: Path) -> None:
    """Whether lines come one by one or a hundred at a time; the oldest files go."""
    file = RotatedFile(path, 70, keep=3)
    for number in range(25):
        file.write(lines(number, number + 1))
    file.write(lines(25, 137))
    file.close()
    assert {found.name for found in path.parent.iterdir()} == {"access.log", *(f"access.log.{n}" for n in (1, 2, 3))}
    assert all(found.stat().st_size <= 70 for found in path.parent.iterdir())
    kept = everything(path)
    assert kept == lines(137 - len(kept), 137)
    assert len(kept) > 30


def test_what_is_there_already_is_continued(path: Path) -> None:
    """A tap that starts again goes on where it was."""
    path.write_bytes(b"".join(lines(0, 8)))
    file = RotatedFile(path, 70, keep=2)
    file.write(lines(8, 12))
    file.close()
    assert path.with_name("access.log.1").read_bytes() == b"".join(lines(0, 10))
    assert path.read_bytes() == b"".join(lines(10, 12))


def test_a_file_that_somebody_moved_is_begun_anew(path: Path) -> None:
    """Another tool may rotate it, or remove it."""
    file = RotatedFile(path, 1000, keep=2)
    file.write(lines(0, 1))
    path.rename(path.with_name("elsewhere"))
    file.write(lines(1, 2))
    path.unlink()
    file.write(lines(2, 3))
    file.close()
    assert path.read_bytes() == b"000002\n"
    assert path.with_name("elsewhere").read_bytes() == b"000000\n"


def test_a_line_longer_than_the_limit_is_written_all_the_same(path: Path) -> None:
    file = RotatedFile(path, 10, keep=1)
    file.write([b"x" * 50 + b"\n", b"y\n"])
    file.close()
    assert path.read_bytes() == b"y\n"
    assert path.with_name("access.log.1").read_bytes() == b"x" * 50 + b"\n"


def test_only_the_tap_and_its_group_can_read_it(path: Path) -> None:
    """It says who asked for what."""
    file = RotatedFile(path, 1000, keep=1)
    file.write(lines(0, 1))
    file.close()
    assert path.stat().st_mode & 0o137 == 0


def test_a_folder_that_is_not_there_is_an_error_until_it_is(path: Path) -> None:
    file = RotatedFile(path.parent / "later" / "access.log", 1000, keep=1)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            file.write(lines(0, 1))
    (path.parent / "later").mkdir()
    file.write(lines(1, 2))
    file.close()
    assert (path.parent / "later" / "access.log").read_bytes() == b"000001\n"


def test_a_pipe_that_nobody_reads_does_not_block(path: Path) -> None:
    """Nor one that is full; what somebody reads gets lines, and is not renamed."""
    os.mkfifo(path)
    file = RotatedFile(path, 10, keep=1)
    with pytest.raises(OSError, match="No such device"):
        file.write(lines(0, 1))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file.write(lines(0, 5))
    assert os.read(reader, 1000) == b"".join(lines(0, 5))
    with pytest.raises(BlockingIOError):
        file.write([b"x" * 1_000_000])
    os.close(reader)
    assert [found.name for found in path.parent.iterdir()] == ["access.log"]


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """The kernel writes no file longer than this for us, as on a disk that is full: a part, and then an error. It is so
    for the whole process, and for the test runner's own output, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_leaves_no_half_line(path: Path) -> None:
    """What did not fit is gone as a whole, so the next line begins as one."""
    file = RotatedFile(path, 10_000, keep=1)
    with small_disk(100):
        file.write(lines(0, 10))
        with pytest.raises(OSError, match="File too large"):
            file.write(lines(10, 30))
        first = path.read_bytes()
        file.write(lines(30, 32))
    file.close()
    assert first == b"".join(lines(0, 10))
    assert path.read_bytes() == b"".join(lines(0, 10) + lines(30, 32))
    assert path.stat().st_size <= 100
