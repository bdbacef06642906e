"""The worker's settings."""

import re
from dataclasses import dataclass
from pathlib import Path

from rabbitbal.runtime.settings import BROKER_URL, INSTANCE, LOG_LEVEL, SettingsError, setting
from rabbitbal.wire.topology import DEFAULT_POOL

MIB = 1024 * 1024

_POOL = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})(?::([0-9]{1,4})(?::(-?[0-9]{1,3}))?)?")
# Of consumers; the broker would take more.
_MOST_PRIORITY = 100


@dataclass(frozen=True)
class Membership:
    """A worker's part in a pool: how many of its requests it runs at a time, and whether others are preferred to it."""

    pool: str
    slots: int
    priority: int = 0
    """The broker prefers the consumer with the higher one while it has a free slot."""


@dataclass(frozen=True)
class Settings:
    broker_url: str = setting("amqp://worker@rabbitmq:5672/", "broker and user", matches=BROKER_URL)
    broker_password_file: Path | None = setting(None, "file that holds the user's password", secret=True)
    app: str = setting("", "application to run, module:attribute, ASGI or WSGI")
    app_dir: str = setting("/app", "directory that the application is imported from")
    app_kind: str = setting("auto", "auto, asgi or wsgi")
    upstream: str = setting("", "instead of an application: http://host:port or unix:/path to forward to")
    pools: str = setting("", "pools to serve, slots and priority in each: default:8,other:4:-1")
    concurrency: int = setting(4, "slots of a pool that names no number", least=1, most=1000)
    claim_after: float = setting(
        0.1, "seconds that a request runs before the edge is told who runs it", least=0, most=60
    )
    streams: int = setting(
        256, "streamed responses that may go on besides the slots, after their first second", least=0, most=100_000
    )
    websocket_limit: int = setting(
        16 * MIB, "largest WebSocket message that an ASGI application gets, bytes", least=1024, most=1024 * MIB
    )
    drain: float = setting(30.0, "seconds that streams may go on when the worker is told to stop", least=0, most=86400)
    worker_id: str = setting("", "name of this worker; made up from the host name if not set", matches=INSTANCE)
    log_level: str = setting("info", "debug, info, warning or error", matches=LOG_LEVEL)

    def memberships(self) -> tuple[Membership, ...]:
        """Raises SettingsError."""
        found: dict[str, Membership] = {}
        for part in (self.pools or DEFAULT_POOL).split(","):
            match = _POOL.fullmatch(part.strip())
            slots = int(match[2]) if match and match[2] else self.concurrency
            priority = int(match[3]) if match and match[3] else 0
            if match is None or match[1] in found or slots < 1 or abs(priority) > _MOST_PRIORITY:
                raise SettingsError(
                    f"RABBITBAL_POOLS={self.pools!r} must read like default:8,reports:2,other:4:-1 "
                    f"(pool, slots, priority from -{_MOST_PRIORITY} to {_MOST_PRIORITY}), each pool once"
                )
            found[match[1]] = Membership(match[1], slots, priority)
        return tuple(found.values())
