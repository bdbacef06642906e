"""Files of recorded exchanges, whichever of the two kinds they are."""

import re
import sys
from pathlib import Path
from typing import BinaryIO

from rabbitbal.operator import har
from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.recording import MOST_LINE, Exchange, decode_exchange

# Bytes of a file: it is held in memory, as requests are recorded in the order of their endings.
MOST_BYTES = 512 * 1024 * 1024
PIPE = Path("-")

_ARCHIVE = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"log"\s*:')


def load(file: Path, limit: int | None = None) -> list[Exchange]:
    """At most the first ``limit``, in the order in which they began. Raises Misused, with the line, and Failed."""
    name = "standard input" if file == PIPE else file.name
    try:
        if file == PIPE:
            found = _read(sys.stdin.buffer, name, limit)
        else:
            with file.open("rb") as opened:
                found = _read(opened, name, limit)
    except OSError as error:
        raise Failed(f"{file}: {error.strerror or error}") from error
    return sorted(found, key=lambda exchange: exchange.when)


def _read(file: BinaryIO, name: str, limit: int | None) -> list[Exchange]:
    first = file.readline(MOST_LINE + 1)
    if not _ARCHIVE.match(first):
        return _lines(first, file, name, limit)
    text = first + file.read(MOST_BYTES - len(first) + 1)
    if len(text) > MOST_BYTES:
        raise Misused(f"{name}: larger than {MOST_BYTES >> 20} MiB")
    try:
        return har.read(text)[:limit]
    except WireError as error:
        raise Misused(f"{name}: {error}") from None


def _lines(line: bytes, file: BinaryIO, name: str, limit: int | None) -> list[Exchange]:
    found: list[Exchange] = []
    number = size = 0
    while line and (limit is None or len(found) < limit):
        number += 1
        size += len(line)
        if size > MOST_BYTES:
            raise Misused(f"{name}:{number}: more than {MOST_BYTES >> 20} MiB; say --limit N for the first N requests")
        if line.strip():
            try:
                exchange = decode_exchange(line.removesuffix(b"\n"))
            except WireError as error:
                raise Misused(f"{name}:{number}: {error}") from None
            if isinstance(exchange, Exchange):
                found.append(exchange)
        line = file.readline(MOST_LINE + 1)
    return found
