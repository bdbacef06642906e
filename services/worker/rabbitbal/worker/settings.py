"""The worker's settings."""

import re
from dataclasses import dataclass
from pathlib import Path

from rabbitbal.runtime.settings import BROKER_URL, INSTANCE, LOG_LEVEL, SettingsError, setting
from rabbitbal.wire.topology import DEFAULT_POOL

MIB = 1024 * 1024

_POOL = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})(?::([0-9]{1,4}))?")


@dataclass(frozen=True)
class Settings:
    broker_url: str = setting("amqp://worker@rabbitmq:5672/", "broker and user", matches=BROKER_URL)
    broker_password_file: Path | None = setting(None, "file that holds the user's password", secret=True)
    app: str = setting("", "application to run, module:attribute, ASGI or WSGI")
    app_dir: str = setting("/app", "directory that the application is imported from")
    app_kind: str = setting("auto", "auto, asgi or wsgi")
    upstream: str = setting("", "instead of an application: http://host:port or unix:/path to forward to")
    pools: str = setting("", "pools to serve and slots in each: default:8,reports:2")
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

    def slots(self) -> dict[str, int]:
        """Slots by pool. Raises SettingsError."""
        if not self.pools:
            return {DEFAULT_POOL: self.concurrency}
        slots: dict[str, int] = {}
        for part in self.pools.split(","):
            match = _POOL.fullmatch(part.strip())
            number = int(match[2]) if match and match[2] else self.concurrency
            if match is None or match[1] in slots or number < 1:
                raise SettingsError(
                    f"RABBITBAL_POOLS={self.pools!r} must read like default:8,reports:2, each pool once"
                )
            slots[match[1]] = number
        return slots
