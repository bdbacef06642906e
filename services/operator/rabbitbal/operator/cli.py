"""The command and its parts. What a command was asked for goes to standard output; what it has to say besides, to
standard error."""

import logging
import sys

import structlog
import typer

from rabbitbal.operator import (
    ledger_commands,
    pools_commands,
    record_commands,
    replay_commands,
    routes_commands,
    workers_commands,
)
from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.reach import say
from rabbitbal.runtime.settings import SettingsError

app = typer.Typer(
    name="rabbitbal",
    help="Routes, pools and workers of a running Rabbitbal.\n\nStatus 0: done; 1: it could not be done; 2: it was not "
    "understood, or the file of routes is not valid.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(routes_commands.app, name="routes")
app.add_typer(pools_commands.app, name="pools")
app.add_typer(workers_commands.app, name="workers")
app.add_typer(ledger_commands.app, name="ledger")
app.command()(workers_commands.drain)
app.command()(workers_commands.resume)
app.command()(record_commands.record)
app.command()(replay_commands.replay)


def main() -> None:
    """Run the command of `sys.argv`, and end the process with its status."""
    logging.basicConfig(level=logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        app(prog_name="rabbitbal")
    except (Misused, SettingsError) as error:
        _end(error, 2)
    except Failed as error:
        _end(error, 1)


def _end(error: Exception, status: int) -> None:
    for line in str(error).splitlines():
        say(line)
    sys.exit(status)
