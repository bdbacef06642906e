"""The way from a command to the broker and back to whoever typed it."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from rabbitbal.operator.errors import Failed
from rabbitbal.operator.management import Management
from rabbitbal.operator.settings import Settings
from rabbitbal.operator.tables import printable
from rabbitbal.operator.telling import Voice, speaking
from rabbitbal.runtime.broker import Server
from rabbitbal.runtime.settings import read

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
File = Annotated[Path | None, typer.Argument(help="the file; - is standard input [default: RABBITBAL_ROUTES]")]


def say(text: str) -> None:
    """To people, besides what was asked for."""
    typer.echo(f"rabbitbal: {printable(text)}", err=True)


def show(value: object) -> None:
    """To programs."""
    typer.echo(json.dumps(value, indent=2))


def ask(question: Callable[[Management], T]) -> T:
    """Raises Failed."""
    settings = read(Settings)
    management = Management(settings.management(), settings.login())
    try:
        return question(management)
    finally:
        management.close()


def act(action: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
    """Raises Failed."""
    settings = read(Settings)
    settings.login()  # it says what is wrong with the file
    return asyncio.run(action(settings.server()))


def speak(action: Callable[[Voice], Coroutine[Any, Any, T]]) -> T:
    """Raises Failed."""
    settings = read(Settings)

    async def spoken(server: Server) -> T:
        async with speaking(server, settings.operator) as voice:
            return await action(voice)

    return act(spoken)


def record(event: str, **fields: object) -> None:
    """Tell the log what was done. That it cannot be told does not undo it."""
    try:
        told = speak(lambda voice: voice.notice(event, **fields))
    except Failed:
        told = False
    if not told:
        say(f"it is done, but the log could not be told ({event})")
