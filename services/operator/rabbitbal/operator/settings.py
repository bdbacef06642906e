"""The operator's settings."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rabbitbal.operator.errors import Failed
from rabbitbal.runtime.broker import Server
from rabbitbal.runtime.settings import BROKER_URL, setting
from rabbitbal.wire import topology

MANAGEMENT_PORT = 15672


@dataclass(frozen=True)
class Settings:
    broker_url: str = setting("amqp://operator@rabbitmq:5672/", "broker and user", matches=BROKER_URL)
    broker_password_file: Path | None = setting(None, "file that holds the user's password", secret=True)
    replay_password_file: Path | None = setting(None, "file that holds the password of the user `replay`", secret=True)
    management_url: str = setting(
        "", "the broker's HTTP API; if not set, port 15672 of the broker's host", matches=r"https?://[^/\s@]+(/\S*)?"
    )
    tap_url: str = setting("http://dashboard:8081/", "the tap's HTTP server", matches=r"https?://[^/\s@]+(/\S*)?")
    routes: Path | None = setting(None, "file of routes")
    operator: str = setting("", "who moves things, for the log")

    def server(self) -> Server:
        return Server(self.broker_url, self.broker_password_file)

    def replayer(self) -> Server:
        """The same broker, as the user who replays. Raises Failed where the file cannot be read."""
        password(self.replay_password_file)
        parts = urlsplit(self.broker_url)
        host = parts.netloc.rpartition("@")[2]
        return Server(parts._replace(netloc=f"{topology.REPLAY}@{host}").geturl(), self.replay_password_file)

    def management(self) -> str:
        """Where the HTTP API is."""
        if self.management_url:
            return self.management_url
        host = urlsplit(self.broker_url).hostname or ""
        return f"http://{f'[{host}]' if ':' in host else host}:{MANAGEMENT_PORT}/"

    def login(self) -> tuple[str, str]:
        """User and password, the same for AMQP and HTTP. Raises Failed where the file cannot be read."""
        parts = urlsplit(self.broker_url)
        known = password(self.broker_password_file)
        return parts.username or "", unquote(parts.password or "") if known is None else known


def password(file: Path | None) -> str | None:
    """What the file holds. Raises Failed where it cannot be read."""
    if file is None:
        return None
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Failed(f"cannot read the password in {file}: {why}; was it ever started?") from error
