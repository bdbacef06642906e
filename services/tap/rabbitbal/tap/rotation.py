"""A file of lines that is replaced by a new one before it grows over its limit; so many old ones stay."""

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path


class RotatedFile:
    """``access.log``, and ``access.log.1`` to ``.N``, the last of them the oldest.

    A line is in one file as a whole. The file is opened anew when somebody has moved or removed it, so other tools may
    rotate it as well. What is no plain file is written to and never renamed.
    """

    def __init__(self, path: Path, limit: int, keep: int) -> None:
        self.name = str(path)
        self._path = path
        self._limit = limit
        self._keep = keep
        self._file = -1
        self._size = 0
        self._plain = True

    def write(self, lines: Sequence[bytes]) -> None:
        """Raises OSError when not all of them are written; then the file ends with a whole line all the same."""
        try:
            self._follow()
            batch: list[bytes] = []
            size = self._size
            for line in lines:
                if size and size + len(line) > self._limit and self._plain:
                    self._append(b"".join(batch))
                    self._rotate()
                    batch, size = [], 0
                batch.append(line)
                size += len(line)
            self._append(b"".join(batch))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)

    def _follow(self) -> None:
        """Open the file, unless the one that is open is the one that is there."""
        if self._file >= 0:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self._path), os.fstat(self._file)):
                    return
            self.close()
        self._open()

    def _open(self) -> None:
        # Whoever clients are is nobody else's business. Not blocking: a pipe without a reader must not stop the tap.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._file = os.open(self._path, flags, 0o640)
        found = os.fstat(self._file)
        self._plain, self._size = stat.S_ISREG(found.st_mode), found.st_size

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            if self._plain:
                # Half a line would be the beginning of the next one.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def _rotate(self) -> None:
        self.close()
        for number in range(self._keep, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number - 1).replace(self._numbered(number))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")
