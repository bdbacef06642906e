"""The edge's settings."""

from dataclasses import dataclass
from pathlib import Path

from rabbitbal.runtime.settings import BROKER_URL, INSTANCE, LOG_LEVEL, setting

MIB = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    broker_url: str = setting("amqp://edge@rabbitmq:5672/", "broker and user", matches=BROKER_URL)
    broker_password_file: Path | None = setting(None, "file that holds the user's password", secret=True)
    host: str = setting("0.0.0.0", "address to listen on")
    port: int = setting(8000, "port to listen on", least=0, most=65535)
    routes: Path | None = setting(None, "file of routes; a built-in table with one catch-all if not set")
    timeout: float = setting(30.0, "seconds from the whole request to its response", least=0.1, most=1500)
    body_limit: int = setting(1024 * MIB, "largest request body, bytes", least=0)
    spool_limit: int = setting(64 * MIB, "bytes kept of one upload, to repeat it on another worker", least=0)
    spool_total: int = setting(1024 * MIB, "bytes kept of all uploads of this edge", least=0)
    spool_dir: Path | None = setting(None, "directory for them; where the system puts temporary files if not set")
    drain: float = setting(30.0, "seconds that streams may go on when the edge is told to stop", least=0, most=3600)
    header_limit: int = setting(32 * 1024, "largest sum of header fields, bytes", least=1024, most=64 * 1024)
    target_limit: int = setting(8 * 1024, "longest request target, bytes", least=64, most=32 * 1024)
    route_grace: float = setting(2.0, "seconds to wait for a pool to be bound to the route", least=0, most=60)
    broker_grace: float = setting(15.0, "seconds to wait for a broker that is away", least=0, most=600)
    max_pending: int = setting(4096, "requests in flight in this edge", least=1, most=1_000_000)
    buffer_limit: int = setting(256 * MIB, "bytes of request bodies held in this edge", least=MIB)
    trusted_proxies: str = setting("127.0.0.1/32,::1/128", "networks whose X-Forwarded-* fields are believed")
    expose_worker: bool = setting(False, "add Rabbitbal-Worker, Rabbitbal-Attempt and Server-Timing to responses")
    trace: bool = setting(False, "take part in traces: each request has a traceparent, and the tap makes spans")
    trace_sample: float = setting(1.0, "share of the traces begun here that are sampled", least=0, most=1)
    edge_id: str = setting("", "name of this edge; made up from the host name if not set", matches=INSTANCE)
    log_level: str = setting("info", "debug, info, warning or error", matches=LOG_LEVEL)
