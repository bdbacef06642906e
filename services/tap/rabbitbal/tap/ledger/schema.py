"""The tables. Times are milliseconds since the Unix epoch; `at` is the tap's clock, `sent` that of whoever sent it."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    false,
    func,
    inspect,
    literal_column,
    select,
    text,
)

from rabbitbal.runtime.settings import SettingsError

VERSION = 1

metadata = MetaData()

meta = Table("meta", metadata, Column("name", String, primary_key=True), Column("value", String, nullable=False))

debit = Table(
    "debits",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("sent", BigInteger),
    Column("edge", String, nullable=False),
    Column("route", String),
    Column("key", String),
    Column("client", String),
    Column("method", String),
    Column("target", String),
    Column("host", String),
    Column("agent", String),
    Column("referer", String),
    Column("request_bytes", BigInteger),
    Column("upgrade", String),
    Column("leg", String),
    # GROUP and PARTITION are words of SQL.
    Column("grouped", String),
    Column("part", String),
    # What is known by claims, heads and credits.
    Column("worker", String),
    Column("pool", String),
    Column("attempt", Integer, nullable=False, default=1),
    Column("closed", Boolean, nullable=False),
)
Index("debits_at", debit.c.at)
# Few entries are open at a time, and all questions about them are asked every few seconds.
_open = debit.c.closed == false()
Index("debits_open", debit.c.at, sqlite_where=_open, postgresql_where=_open)
Index("debits_open_of_edge", debit.c.edge, debit.c.at, sqlite_where=_open, postgresql_where=_open)

credit = Table(
    "credits",
    metadata,
    Column("id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("sender", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("sent", BigInteger),
    Column("edge", String),
    Column("status", Integer),
    Column("reason", String),
    Column("worker", String),
    Column("pool", String),
    Column("bytes", BigInteger, nullable=False),
    Column("app_us", BigInteger),
    Column("total_us", BigInteger),
    Column("standing", String, nullable=False),
    PrimaryKeyConstraint("id", "kind", "attempt", "sender"),
    sqlite_with_rowid=False,
)
# Those without a debit are few, and are deleted by themselves. SQLite takes a partial index for a literal only.
LONELY = credit.c.standing == literal_column("'unmatched'")
Index("credits_unmatched", credit.c.at, sqlite_where=LONELY, postgresql_where=LONELY)

steps = Table(
    "steps",
    metadata,
    Column("id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("sender", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("sent", BigInteger),
    Column("pool", String),
    Column("app_us", BigInteger),
    PrimaryKeyConstraint("id", "kind", "attempt", "sender"),
    sqlite_with_rowid=False,
)
Index("steps_at", steps.c.at)

accounts = Table(
    "accounts",
    metadata,
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("debits", "credits", "duplicates", "late", "unmatched", "written_off")
    ),
    Column("touched", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "name"),
    sqlite_with_rowid=False,
)
Index("accounts_debits", accounts.c.kind, accounts.c.debits)
Index("accounts_touched", accounts.c.kind, accounts.c.touched)

endings = Table(
    "endings",
    metadata,
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("ending", String, nullable=False),
    Column("number", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "name", "ending"),
    sqlite_with_rowid=False,
)

edges = Table(
    "edges",
    metadata,
    Column("edge", String, primary_key=True),
    Column("heard", BigInteger, nullable=False),
    Column("debits", BigInteger, nullable=False),
    Column("endings", BigInteger, nullable=False),
    Column("since", BigInteger),
    Column("figures_at", BigInteger),
    Column("opened", BigInteger),
    Column("closed", BigInteger),
    Column("untold", BigInteger),
    Column("pending", BigInteger),
    Column("oldest", BigInteger),
    Column("leaving", Boolean, nullable=False),
    Column("lacking_debits", BigInteger),
    Column("lacking_credits", BigInteger),
    Column("said_debits", BigInteger, nullable=False),
    Column("said_credits", BigInteger, nullable=False),
    Column("said_untold", BigInteger, nullable=False),
    Column("gone", Boolean, nullable=False),
)

gaps = Table(
    "gaps",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    # What is missing was missed after this, and before `at`.
    Column("after", BigInteger),
    Column("edge", String),
    Column("debits", BigInteger, nullable=False),
    Column("credits", BigInteger, nullable=False),
    Column("cause", String, nullable=False),
)
Index("gaps_edge", gaps.c.edge, gaps.c.at)

# What was deleted by retention, so that the tables and the accounts can be compared.
carried = Table(
    "carried",
    metadata,
    Column("name", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

# The names of the access line, one row for each request that has ended.
ACCESS_LOG = """
CREATE VIEW access_log AS
SELECT d.id AS id, d.sent AS began, c.sent AS ended, d.method AS method, d.target AS target, d.host AS host,
  d.client AS client, d.agent AS agent, d.referer AS referer, d.route AS route, d.edge AS edge, d.leg AS leg,
  d.grouped AS "group", d.part AS "partition", d.upgrade AS upgrade, d.request_bytes AS request_bytes,
  c.status AS status, c.reason AS reason, c.worker AS worker, c.pool AS pool, c.attempt AS attempt, c.bytes AS bytes,
  c.app_us / 1000.0 AS app_ms, c.sent - d.sent AS total_ms,
  CASE WHEN c.sent - d.sent < c.app_us / 1000.0 THEN 0 ELSE c.sent - d.sent - c.app_us / 1000.0 END AS queue_ms
FROM debits d JOIN credits c ON c.id = d.id AND c.standing = 'first'
"""


def prepare(connection: Connection, now: int) -> None:
    """Make what is missing. Raises SettingsError for a database that a newer tap has made."""
    if inspect(connection).has_table("meta"):
        found = connection.execute(select(meta.c.value).where(meta.c.name == "version")).scalar()
        if found is not None and (not found.isdigit() or int(found) > VERSION):
            raise SettingsError(
                f"RABBITBAL_LEDGER_URL names a ledger of version {found[:20]}, made by a newer tap; this one knows "
                f"version {VERSION}. Start the newer tap, or give this one another database"
            )
        if found is not None:
            return
    metadata.create_all(connection)
    connection.execute(text(ACCESS_LOG))
    connection.execute(
        meta.insert(), [{"name": "version", "value": str(VERSION)}, {"name": "begun", "value": str(now)}]
    )


def count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()
