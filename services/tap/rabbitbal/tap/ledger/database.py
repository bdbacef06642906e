"""The database of the books: its URL, and the one thread that writes."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import StaticPool

from rabbitbal.runtime.settings import SettingsError
from rabbitbal.tap.ledger import schema

T = TypeVar("T")

OFF = "none"
# Seconds: to connect, for a statement of the writer, and for a question of somebody who looks.
CONNECT = 5
STATEMENT = 30
QUESTION = 5.0
# Questions that wait for their turn at a time.
MOST_WAITING = 16
# SQLite counts its virtual machine's steps; so often it is asked whether the time is over.
_STEPS = 10_000
# Any number, the same in all taps: who holds it writes. Two taps, one just going, must not book at the same time.
_WRITER = 0x7261626269


class Slow(Exception):
    """A question took too long, or too many wait. The text is for who asked."""


def parse(url: str, password_file: Path | None = None) -> URL | None:
    """Where the books are, None for nowhere. Raises SettingsError, and never says a password."""
    if url == OFF:
        return None
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError("RABBITBAL_LEDGER_URL is no URL of a database, like sqlite:////var/lib/file.db") from None
    name = parsed.drivername
    if name in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:" or parsed.host or parsed.query:
            raise SettingsError("RABBITBAL_LEDGER_URL must name a file: sqlite:////var/lib/rabbitbal/ledger.db")
        return parsed.set(drivername="sqlite")
    if name not in ("postgresql", "postgresql+psycopg"):
        raise SettingsError(f"RABBITBAL_LEDGER_URL begins with {name[:40]!r}; sqlite and postgresql+psycopg are known")
    if not parsed.host or not parsed.database:
        raise SettingsError("RABBITBAL_LEDGER_URL must name a host and a database: postgresql+psycopg://user@host/db")
    if password_file is not None:
        try:
            parsed = parsed.set(password=password_file.read_text().strip())
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise SettingsError(f"RABBITBAL_LEDGER_PASSWORD_FILE: cannot read {password_file}: {why}") from None
    return parsed.set(drivername="postgresql+psycopg")


class Database:
    """One connection that writes and one that reads, each in a thread of its own: who looks holds up no booking."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.sqlite = url.drivername == "sqlite"
        self._writer = _sqlite(url, "IMMEDIATE") if self.sqlite else _postgresql(url, STATEMENT)
        self._reader = _sqlite(url, "DEFERRED") if self.sqlite else _postgresql(url, QUESTION)
        self._writing = ThreadPoolExecutor(1, "ledger")
        self._reading = ThreadPoolExecutor(1, "ledger-questions")
        self._waiting = 0
        self._prepared = False

    async def write(self, action: Callable[[Connection], T]) -> T:
        """In one transaction, in the thread. Raises SQLAlchemyError."""
        return await asyncio.get_running_loop().run_in_executor(self._writing, self.written, action)

    def written(self, action: Callable[[Connection], T]) -> T:
        """The same, here and now."""
        with self._writer.connect() as connection:
            with connection.begin():
                self._lock(connection)
                if not self._prepared:
                    schema.prepare(connection, int(time.time() * 1000))
                done = action(connection)
            self._prepared = True
            return done

    async def ask(self, question: Callable[[Connection], T]) -> T:
        """Raises Slow, SQLAlchemyError."""
        if self._waiting >= MOST_WAITING:
            raise Slow("too many ask the ledger at the same time")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, self.asked, question)
        finally:
            self._waiting -= 1

    def asked(self, question: Callable[[Connection], T]) -> T:
        with self._reader.connect() as connection:
            if self.sqlite:
                _bound(connection, time.monotonic() + QUESTION)
            else:
                connection.execute(text("SET TRANSACTION READ ONLY"))
            try:
                return question(connection)
            except Exception as error:
                if any(word in str(error) for word in ("interrupted", "statement timeout")):
                    raise Slow(f"the ledger had no answer within {QUESTION:g} s") from error
                raise

    def close(self) -> None:
        """Wait for what is being written."""
        self._writing.shutdown()
        self._reading.shutdown(cancel_futures=True)
        self._writer.dispose()
        self._reader.dispose()

    def _lock(self, connection: Connection) -> None:
        # SQLite's BEGIN IMMEDIATE is one already.
        if not self.sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _WRITER})


def _postgresql(url: URL, statement: float) -> Engine:
    milliseconds = int(statement * 1000)
    return create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT,
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
            "tcp_user_timeout": STATEMENT * 1000,
            "application_name": "rabbitbal-tap",
        },
    )


def _sqlite(url: URL, begin: str) -> Engine:
    engine = create_engine(
        url,
        connect_args={"check_same_thread": False, "timeout": CONNECT, "isolation_level": None},
        poolclass=StaticPool,
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        # Space that retention frees goes back to the file system piece by piece. It counts for a new file only.
        cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
        # With a write-ahead log who reads does not wait. A power cut may cost the newest transactions, never the file:
        # https://www.sqlite.org/pragma.html#pragma_synchronous
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA cache_size=-16384")
        cursor.execute("PRAGMA journal_size_limit=67108864")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {begin}")

    return engine


def _bound(connection: Connection, deadline: float) -> None:
    """Interrupt what takes longer."""
    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS)
