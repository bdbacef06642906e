"""The tap's settings."""

from dataclasses import dataclass
from pathlib import Path

from rabbitbal.runtime.settings import BROKER_URL, LOG_LEVEL, setting
from rabbitbal.tap import redaction
from rabbitbal.tap.ledger import database

HOSTS = r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(\s*,\s*([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]))*"
ACCESS_LOG = r"none|(stdout|file|table)(\s*,\s*(stdout|file|table))*"
URL = r"https?://[^/\s?#]+(/[^\s?#]*)?"


@dataclass(frozen=True)
class Settings:
    broker_url: str = setting("amqp://tap@rabbitmq:5672/", "broker and user", matches=BROKER_URL)
    broker_password_file: Path | None = setting(None, "file that holds the user's password", secret=True)
    open_limit: int = setting(50_000, "requests remembered until their response is seen", least=1)
    tap_prefetch: int = setting(2000, "messages taken off the queue at a time", least=1, most=10_000)
    dashboard_host: str = setting("127.0.0.1", "address or name of the interface that the page is served on")
    dashboard_port: int = setting(8081, "its port", least=0, most=65535)
    dashboard_hosts: str = setting("", "other names that it answers to, with commas between them", matches=HOSTS)
    stories: int = setting(5000, "requests whose timelines are remembered", least=1, most=1_000_000)
    access_log: str = setting("stdout", "where access lines go: stdout, file, table, or none", matches=ACCESS_LOG)
    access_log_format: str = setting("json", "json, combined or combined+", matches=r"json|combined\+?")
    access_log_file: Path = setting(Path("/var/lib/rabbitbal/access.log"), "the file")
    access_log_size: int = setting(50 * 1024 * 1024, "bytes of a file before the next one begins", least=65_536)
    access_log_keep: int = setting(4, "old files that stay", least=1, most=1000)
    redact: str = setting(redaction.DEFAULT, "names whose values are not stored; +name adds", matches=redaction.RULES)
    otlp_endpoint: str = setting("", "base address of a collector of traces (OTLP over HTTP)", matches=URL)
    traces_limit: int = setting(10_000, "traced requests remembered until their ending is seen", least=1)
    ledger_url: str = setting("sqlite:////var/lib/rabbitbal/ledger.db", "database of the books; none: no books")
    ledger_password_file: Path | None = setting(None, "file that holds the database's password", secret=True)
    ledger_age: str = setting("7d", "how long an ended request is kept: seconds, 12h, 7d", matches=r"[0-9]{1,7}[smhd]?")
    ledger_size: int = setting(1024**3, "bytes of the books; the oldest requests make room", least=16 * 1024 * 1024)
    ledger_patience: float = setting(30, "seconds that a batch waits for the database", least=0, most=3600)
    record_unredacted: bool = setting(False, "whoever records is given credentials, too")
    pools_declared: str = setting("default", "pools whose queues are looked at: default,shop:sticky")
    scale_utilisation: float = setting(0.8, "share of slots that shall be occupied", least=0.05, most=1)
    scale_backlog: float = setting(10.0, "seconds in which what waits shall be run off", least=0.1, most=3600)
    bots: bool = setting(True, "look for bots among the clients")
    bots_window: float = setting(120, "seconds of a client's doings that are looked at", least=6, most=3600)
    bots_verdict: float = setting(300, "seconds that a verdict holds after the last reason", least=1, most=86_400)
    bots_clients: int = setting(20_000, "clients remembered", least=1, most=1_000_000)
    bots_threshold: float = setting(0.6, "score from which a client is suspected, 0 to 1", least=0.05, most=1)
    bots_trusted: str = setting("", "networks whose clients are never suspected, with commas between them")
    log_level: str = setting("info", "debug, info, warning or error", matches=LOG_LEVEL)

    def __post_init__(self) -> None:
        database.parse(self.ledger_url, self.ledger_password_file)

    def ledger_seconds(self) -> float:
        """How long an ended request is kept."""
        unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}
        return float(self.ledger_age.rstrip("smhd")) * unit.get(self.ledger_age[-1], 1)

    def access_log_sinks(self) -> frozenset[str]:
        """`stdout`, `file`, and `table`, which is the ledger's view `access_log`."""
        return frozenset(name.strip() for name in self.access_log.split(",")) - {"none"}
