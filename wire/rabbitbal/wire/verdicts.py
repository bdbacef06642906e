"""What the tap thinks of a client, told to edges: the payload of a message of kind `verdict`, JSON
(docs/wire-format.md).
"""

import json
import re
from dataclasses import asdict, dataclass
from enum import StrEnum

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Fields, first

MOST_BYTES = 8192
MOST_REASONS = 12
LONGEST_REASON = 200
# Seconds after which a verdict that still holds is told again: an edge that has started since then learns it so.
REPEATED = 10.0

_MOST = 1 << 63
_CLIENT = re.compile(r"[0-9A-Fa-f.:]{2,45}")


class Suspicion(StrEnum):
    # There is nothing against it. It may be anything.
    HUMAN = "human"
    # A program that says so, and whose it is.
    CRAWLER = "crawler"
    # It behaves as a program that hides, scans, or takes what it was asked not to.
    SUSPECT = "suspect"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``score`` is from 0 to 1; ``reasons`` are short sentences for people. Times are in milliseconds since the Unix
    epoch: ``since`` when it began to hold, and after ``until`` it counts for nothing."""

    client: str
    kind: Suspicion
    score: float
    reasons: tuple[str, ...]
    since: int
    until: int


def client_in(forwarded: str | None) -> str | None:
    """The address that a client is known by: the first of `X-Forwarded-For` as the edge made it. None for what is no
    address: nobody is accused under such a name."""
    if forwarded is None:
        return None
    address = forwarded[:200].partition(",")[0].strip()
    return address if _CLIENT.fullmatch(address) else None


def client_of(fields: Fields) -> str | None:
    """The same, of a request's fields as the application sees them."""
    value = first(fields, b"x-forwarded-for")
    return None if value is None else client_in(value[:200].decode("latin-1"))


def encode_verdict(verdict: Verdict) -> bytes:
    return json.dumps(asdict(verdict)).encode()


def decode_verdict(payload: bytes) -> Verdict:
    """Raises WireError for what is no verdict, or out of bounds. What has another name is ignored."""
    if len(payload) > MOST_BYTES:
        raise WireError(f"a verdict has {len(payload)} bytes; {MOST_BYTES} is the most")
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        raise WireError("a verdict is not JSON") from None
    if not isinstance(found, dict):
        raise WireError("a verdict is not a JSON object")
    client = found.get("client")
    if not isinstance(client, str) or not _CLIENT.fullmatch(client):
        raise WireError("a verdict must name a client by its address")
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in {one.value for one in Suspicion}:
        raise WireError(f"kind of a verdict must be one of {', '.join(Suspicion)}")
    return Verdict(
        client, Suspicion(kind), _score(found), _reasons(found), _moment(found, "since"), _moment(found, "until")
    )


def _score(found: dict[str, object]) -> float:
    score = found.get("score")
    # bool is a subclass of int. Python reads NaN, which is not between any two numbers.
    if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
        raise WireError("score of a verdict must be a number from 0 to 1")
    return float(score)


def _reasons(found: dict[str, object]) -> tuple[str, ...]:
    reasons = found.get("reasons")
    if not isinstance(reasons, list) or len(reasons) > MOST_REASONS:
        raise WireError(f"reasons of a verdict must be a list of at most {MOST_REASONS}")
    for reason in reasons:
        if not isinstance(reason, str) or len(reason) > LONGEST_REASON:
            raise WireError(f"a reason must be a text of at most {LONGEST_REASON} characters")
    return tuple(reasons)


def _moment(found: dict[str, object], name: str) -> int:
    value = found.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
        raise WireError(f"{name!r} of a verdict must be milliseconds since the Unix epoch")
    return value
