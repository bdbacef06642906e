"""The operator's settings."""

from dataclasses import dataclass
from pathlib import Path

from rabbitbal.runtime.settings import BROKER_URL, setting


@dataclass(frozen=True)
class Settings:
    broker_url: str = setting("amqp://operator@rabbitmq:5672/", "broker and user", matches=BROKER_URL)
    broker_password_file: Path | None = setting(None, "file that holds the user's password", secret=True)
    management_url: str = setting("http://rabbitmq:15672/", "the broker's HTTP API", matches=r"https?://[^/\s@]+/?")
    routes: Path | None = setting(None, "file of routes")
    operator: str = setting("", "who moves things, for the log")
