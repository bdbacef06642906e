"""The settings of the one-shot jobs."""

import re
from dataclasses import dataclass
from pathlib import Path

from rabbitbal.runtime.settings import BROKER_URL, SettingsError, setting

MIB = 1024 * 1024

_POOL = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})(:sticky)?")


@dataclass(frozen=True)
class Settings:
    broker_url: str = setting("amqp://topology@rabbitmq:5672/", "broker and user", matches=BROKER_URL)
    broker_password_file: Path | None = setting(None, "file that holds the user's password", secret=True)
    secret_root: Path = setting(Path("/secrets"), "directory with one volume per role")
    definitions: Path = setting(Path("/definitions/definitions.json"), "file that the broker boots with")
    pools_declared: str = setting("default", "pools to declare: default,shop:sticky")
    pool_length: int = setting(1000, "requests that may wait in a pool's queue, or a partition's", least=1)
    pool_length_bytes: int = setting(128 * MIB, "bytes that may wait in a pool's queue, or a partition's", least=1024)
    queue_type: str = setting("classic", "classic (one broker) or quorum (a cluster)", matches="classic|quorum")
    declare_timeout: float = setting(60.0, "seconds to wait for the broker", least=1)

    def pools(self) -> dict[str, bool]:
        """Whether each pool is sticky, by its name. Raises SettingsError."""
        pools: dict[str, bool] = {}
        for part in filter(None, map(str.strip, self.pools_declared.split(","))):
            match = _POOL.fullmatch(part)
            if match is None or match[1] in pools:
                pools = {}
                break
            pools[match[1]] = match[2] is not None
        if not pools:
            raise SettingsError(
                f"RABBITBAL_POOLS_DECLARED={self.pools_declared!r} must read like default,shop:sticky, each pool once"
            )
        return pools
