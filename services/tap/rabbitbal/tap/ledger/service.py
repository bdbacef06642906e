"""The books as the service `rabbitbal.tap.serve` uses them."""

from collections.abc import Callable

from rabbitbal.tap.ledger import database
from rabbitbal.tap.ledger.books import Books
from rabbitbal.tap.ledger.retention import Retention
from rabbitbal.tap.redaction import Redactor
from rabbitbal.tap.settings import Settings


def open_books(settings: Settings, redactor: Redactor, up: Callable[[], bool]) -> Books | None:
    """None where the ledger is turned off. Raises SettingsError."""
    url = database.parse(settings.ledger_url, settings.ledger_password_file)
    if url is None:
        return None
    retention = Retention(settings.ledger_seconds(), settings.ledger_size)
    return Books(database.Database(url), redactor, up, settings.ledger_patience, retention)
