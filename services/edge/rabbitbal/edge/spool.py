"""What an upload keeps of itself, so that another worker can have it from byte 0."""

import contextlib
import tempfile
from pathlib import Path
from typing import IO

# Beyond this it goes to a file.
IN_MEMORY = 64 * 1024


class SpoolSpace:
    """The bytes that all spools of an edge may hold, and where."""

    def __init__(self, total: int, each: int, directory: Path | None = None) -> None:
        self.each = each
        self.directory = directory
        self._left = total

    def take(self, size: int) -> bool:
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        self._left += size


class Spool:
    """Bytes that can be read again. Once there is no room for all of them it holds none, and is no longer `whole`;
    `too_large` then tells whether that is its own size, or what others keep.

    Whoever else reads it must `share` it, and each closes it once.

    Files are written and read in the loop's thread: that is a copy to or from the page cache, a few microseconds.
    """

    def __init__(self, space: SpoolSpace) -> None:
        self._space = space
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            IN_MEMORY, dir=None if space.directory is None else str(space.directory)
        )
        self._holders = 1
        self.size = 0
        self.whole = True
        self.too_large = False

    def share(self) -> None:
        self._holders += 1

    def append(self, piece: bytes) -> None:
        if not self.whole:
            return
        self.too_large = self.size + len(piece) > self._space.each
        if self.too_large or not self._space.take(len(piece)):
            self._drop()
            return
        self.size += len(piece)
        try:
            self._file.seek(0, 2)
            self._file.write(piece)
            # A full disk is to be met here, not by who reads or closes.
            self._file.flush()
        except OSError:
            # The disk is full. The upload goes on; it only cannot be repeated.
            self._drop()

    def read(self, position: int, size: int) -> bytes:
        self._file.seek(position)
        return self._file.read(size)

    def close(self) -> None:
        self._holders -= 1
        if self._holders <= 0:
            self._drop()

    def _drop(self) -> None:
        if self.whole:
            self.whole = False
            self._space.give_back(self.size)
            # What could not be written is tried once more.
            with contextlib.suppress(OSError):
                self._file.close()
