"""The settings of the one-shot jobs."""

from dataclasses import dataclass
from pathlib import Path

from rabbitbal.runtime.settings import BROKER_URL, SettingsError, setting

MIB = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    broker_url: str = setting("amqp://topology@rabbitmq:5672/", "broker and user", matches=BROKER_URL)
    broker_password_file: Path | None = setting(None, "file that holds the user's password", secret=True)
    secret_root: Path = setting(Path("/secrets"), "directory with one volume per role")
    definitions: Path = setting(Path("/definitions/definitions.json"), "file that the broker boots with")
    pools_declared: str = setting("default", "pools to declare, separated by commas")
    pool_length: int = setting(1000, "requests that may wait in a pool's queue", least=1)
    pool_length_bytes: int = setting(128 * MIB, "bytes that may wait in a pool's queue", least=1024)
    queue_type: str = setting("classic", "classic (one broker) or quorum (a cluster)", matches="classic|quorum")
    declare_timeout: float = setting(60.0, "seconds to wait for the broker", least=1)

    def pool_names(self) -> list[str]:
        """Raises SettingsError."""
        names = [name.strip() for name in self.pools_declared.split(",") if name.strip()]
        if not names or any(not name.replace("-", "").replace("_", "").isalnum() for name in names):
            raise SettingsError(f"RABBITBAL_POOLS_DECLARED={self.pools_declared!r} must be names separated by commas")
        return names
