"""The tap's settings."""

from dataclasses import dataclass
from pathlib import Path

from rabbitbal.runtime.settings import BROKER_URL, LOG_LEVEL, setting


@dataclass(frozen=True)
class Settings:
    broker_url: str = setting("amqp://tap@rabbitmq:5672/", "broker and user", matches=BROKER_URL)
    broker_password_file: Path | None = setting(None, "file that holds the user's password", secret=True)
    open_limit: int = setting(50_000, "requests remembered until their response is seen", least=1)
    tap_prefetch: int = setting(2000, "messages taken off the queue at a time", least=1, most=10_000)
    dashboard_host: str = setting("127.0.0.1", "address or name of the interface that the page is served on")
    dashboard_port: int = setting(8081, "its port", least=0, most=65535)
    log_level: str = setting("info", "debug, info, warning or error", matches=LOG_LEVEL)
