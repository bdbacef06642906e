"""What a route does with its requests, as data."""

from dataclasses import dataclass
from enum import StrEnum

MIB = 1024 * 1024


class Mode(StrEnum):
    """How many workers get the request."""

    ONE = "one"
    # A copy for each key; the first good answer counts.
    FIRST = "first"
    # A copy for each key; the client gets all answers.
    ALL = "all"
    # The first key answers; the others' answers are for the tap.
    SHADOW = "shadow"


class Redeliver(StrEnum):
    """Whether a request whose worker was lost runs again."""

    # By RFC 9110 §9.2.2: if the method is idempotent, or there is an Idempotency-Key.
    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Delivery(StrEnum):
    """AMQP's delivery mode: whether a waiting request outlives a restart of the broker."""

    TRANSIENT = "transient"
    PERSISTENT = "persistent"


class Bots(StrEnum):
    """What becomes of a request whose client the tap suspects of being a bot."""

    ALLOW = "allow"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Hedge:
    """``budget`` is the share of requests that may be sent twice, 0 to 1; ``after`` is in seconds, None for the route's
    95th percentile."""

    budget: float
    after: float | None


@dataclass(frozen=True, slots=True)
class Sticky:
    """The value that keeps requests together is that of a cookie or of a header. With ``issue`` the edge gives a
    client a cookie that has none."""

    cookie: str | None = None
    header: str | None = None
    issue: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """``timeout`` is in seconds and ``body_limit`` in bytes, None for the edge's own. ``sample`` is the share of
    requests that are shadowed, 0 to 1. ``part_limit`` is in bytes, of each answer in mode ``all``."""

    timeout: float | None = None
    body_limit: int | None = None
    redeliver: Redeliver = Redeliver.AUTO
    delivery: Delivery = Delivery.TRANSIENT
    mode: Mode = Mode.ONE
    sample: float = 1.0
    part_limit: int = MIB
    hedge: Hedge | None = None
    sticky: Sticky | None = None
    bots: Bots = Bots.ALLOW
