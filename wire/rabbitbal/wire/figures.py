"""What an edge or a worker says of itself every few seconds: counts since its start, so that a message that is lost
costs nothing. The payload of a message of kind `figures`, JSON (docs/wire-format.md).
"""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from rabbitbal.wire.errors import WireError

MOST_BYTES = 65_536
MOST_POOLS = 64
# Seconds from one to the next.
PERIOD = 2.0

# A count travels as a signed 64-bit integer at most.
_MOST = 1 << 63
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_REASON = re.compile(r"[a-z][a-z-]{0,31}")


@dataclass(frozen=True, slots=True)
class EdgeFigures:
    """Times are in milliseconds since the Unix epoch, by the edge's clock.

    What the edge calls a request here is what the tap calls one: each copy of one that goes to several pools, an answer
    that was gathered from them, and one that was refused, too.
    """

    at: int
    since: int
    """When it started to count."""
    opened: int
    """Requests that were given to a pool for the first time, or ended before that."""
    closed: int
    """Requests that have ended."""
    untold: int
    """Of those, the ones whose ending the edge could tell nobody."""
    pending: int
    oldest: int | None
    """When the oldest of the pending ones came: what came earlier has ended."""
    leaving: bool = False
    """These are its last figures."""
    endings: dict[str, int] = field(default_factory=dict)
    """By reason, and `answered`; of clients' requests only."""


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """A worker's part in one pool."""

    slots: int
    priority: int
    running: int
    done: int
    """Requests that have left their slot."""
    busy: int
    """Microseconds that slots were occupied for those."""


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """Times are in milliseconds since the Unix epoch, by the worker's clock."""

    at: int
    since: int
    running: int
    streams: int
    """Requests that run besides the slots."""
    drained: bool
    memory: int
    """Resident bytes of its process."""
    pools: dict[str, PoolFigures]
    leaving: bool = False


def encode_figures(figures: EdgeFigures | WorkerFigures) -> bytes:
    return json.dumps({"of": "edge" if isinstance(figures, EdgeFigures) else "worker", **asdict(figures)}).encode()


def decode_figures(payload: bytes) -> EdgeFigures | WorkerFigures:
    """Raises WireError for what is not of one of the two shapes, or out of bounds. Unknown names are ignored: a newer
    edge or worker may say more."""
    if len(payload) > MOST_BYTES:
        raise WireError(f"figures have {len(payload)} bytes; {MOST_BYTES} is the most")
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        raise WireError("figures are not JSON") from None
    if not isinstance(found, dict):
        raise WireError("figures are not a JSON object")
    counts = _Counts(found)
    if found.get("of") == "edge":
        return EdgeFigures(
            counts["at"],
            counts["since"],
            counts["opened"],
            counts["closed"],
            counts["untold"],
            counts["pending"],
            None if found.get("oldest") is None else counts["oldest"],
            counts.flag("leaving"),
            _endings(found.get("endings")),
        )
    if found.get("of") == "worker":
        return WorkerFigures(
            counts["at"],
            counts["since"],
            counts["running"],
            counts["streams"],
            counts.flag("drained"),
            counts["memory"],
            _pools(found.get("pools")),
            counts.flag("leaving"),
        )
    raise WireError("figures must be of an edge or of a worker")


class _Counts:
    """Reads a JSON object's members with a check. Raises WireError."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found

    def __getitem__(self, name: str) -> int:
        return self.number(name, least=0)

    def number(self, name: str, least: int) -> int:
        value = self._found.get(name)
        # bool is a subclass of int.
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _MOST:
            raise WireError(f"figures must have a count {name!r}")
        return value

    def flag(self, name: str) -> bool:
        value = self._found.get(name, False)
        if not isinstance(value, bool):
            raise WireError(f"{name!r} of figures must be true or false")
        return value


def _endings(found: object) -> dict[str, int]:
    if not isinstance(found, dict) or len(found) > MOST_POOLS or not all(map(_REASON.fullmatch, found)):
        raise WireError("endings of figures must be counts by reason")
    counts = _Counts(found)
    return {name: counts[name] for name in found}


def _pools(found: object) -> dict[str, PoolFigures]:
    if not isinstance(found, dict) or len(found) > MOST_POOLS or not all(map(_NAME.fullmatch, found)):
        raise WireError(f"pools of figures must be at most {MOST_POOLS}, by name")
    pools = {}
    for name, part in found.items():
        if not isinstance(part, dict):
            raise WireError("a pool's figures are not a JSON object")
        counts = _Counts(part)
        pools[name] = PoolFigures(
            counts["slots"],
            counts.number("priority", least=-_MOST),
            counts["running"],
            counts["done"],
            counts["busy"],
        )
    return pools
