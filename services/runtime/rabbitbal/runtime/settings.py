"""Settings: frozen dataclasses read once from `RABBITBAL_*` variables.

A field ``body_limit: int = 8388608`` is the variable ``RABBITBAL_BODY_LIMIT``. A bad value stops the program with one
line that names the variable. A field's metadata may hold ``help``, ``least``, ``most``, ``matches`` and ``secret``.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PREFIX = "RABBITBAL_"
BROKER_URL = r"amqps?://[^/\s]+(/\S*)?"
INSTANCE = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
LOG_LEVEL = "debug|info|warning|error"
T = TypeVar("T", bound="DataclassInstance")


class SettingsError(ValueError):
    """A setting that cannot be used. The text is one line for the operator."""


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    least: float | None = None,
    most: float | None = None,
    matches: str | None = None,
    secret: bool = False,
) -> Any:
    """A dataclass field with what `describe` and `read` need to know about it.

    Bounds are inclusive; ``matches`` is a regular expression that the whole text must match.
    """
    metadata = {"help": help, "least": least, "most": most, "matches": matches, "secret": secret}
    return dataclasses.field(default=default, metadata=metadata)


def variable(name: str) -> str:
    return PREFIX + name.upper()


def read(kind: type[T], environ: Mapping[str, str] = os.environ) -> T:
    """An instance of the dataclass from the environment. Raises SettingsError.

    An empty variable counts as unset: compose files write ``VAR: ${VAR:-}``.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        name = variable(field.name)
        text = environ.get(name, "").strip()
        if text:
            found[field.name] = _parse(name, text, field)
        elif field.default is dataclasses.MISSING:
            raise SettingsError(f"{name} must be set: {field.metadata.get('help', '')}")
    return kind(**found)


def _parse(name: str, text: str, field: "dataclasses.Field[Any]") -> Any:
    kind = field.type
    try:
        if kind in (int, float):
            value = kind(text)
            least, most = field.metadata.get("least"), field.metadata.get("most")
            # `not (a <= b)` also refuses nan.
            if (least is not None and not least <= value) or (most is not None and not value <= most):
                raise SettingsError(f"{name}={text} must lie between {least} and {most}")
            return value
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        if kind is Path or kind == Path | None:
            return Path(text)
        if (pattern := field.metadata.get("matches")) is not None and not re.fullmatch(pattern, text):
            raise SettingsError(f"{name}={_without_password(text)!r} must match {pattern}")
        return text
    except (ValueError, KeyError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{name}={text!r} is not a valid {getattr(kind, '__name__', kind)}") from None


def describe(kind: type[Any]) -> str:
    """The settings as `--help` prints them."""
    lines = ["Settings are environment variables:", ""]
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING
        shown = "required" if required else f"default {field.default!r}"
        lines.append(f"  {variable(field.name):30} {field.metadata.get('help', '')} ({shown})")
    return "\n".join(lines)


def public(settings: Any) -> dict[str, Any]:
    """The settings as plain values, less the secret ones."""
    return {
        variable(field.name): value
        if isinstance(value := getattr(settings, field.name), int | float)
        else _without_password(str(value))
        for field in dataclasses.fields(settings)
        if not field.metadata.get("secret")
    }


def _without_password(text: str) -> str:
    return re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", text)
