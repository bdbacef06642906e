"""The files that were uploaded, in the volume that the workers share."""

import asyncio
import hashlib
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import IO

DIRECTORY = Path("/data/files")
PATIENCE = 20.0
PERIOD = 0.05

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def names() -> list[str]:
    return sorted(path.name for path in DIRECTORY.glob("*"))


def find(name: str) -> Path | None:
    if _NAME.fullmatch(name) is None:
        return None
    path = DIRECTORY / name
    return path if path.is_file() else None


def add(name: str, upload: IO[bytes]) -> bool:
    """Whether the name is one for a file; if not, nothing is saved."""
    if _NAME.fullmatch(name) is None:
        return False
    DIRECTORY.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=DIRECTORY.parent, delete=False) as whole:
        shutil.copyfileobj(upload, whole)
    # Renamed when it is whole, so that nobody sees a part of it.
    Path(whole.name).rename(DIRECTORY / name)
    return True


def line(name: str) -> str:
    """Name, bytes and checksum of a file."""
    with (DIRECTORY / name).open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        return f"{name} {file.tell()} {checksum}"


def arrives(name: str) -> bool:
    """Wait for a file that is not there yet, up to PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while (found := find(name)) is None and time.monotonic() < deadline:
        time.sleep(PERIOD)
    return found is not None


async def arrives_async(name: str) -> bool:
    """The same for an event loop. (No Event could tell: it may be another worker that puts the file there.)"""
    deadline = time.monotonic() + PATIENCE
    while (found := find(name)) is None and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(PERIOD)
    return found is not None
