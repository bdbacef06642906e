"""The shape of the file of routes, and its JSON Schema (docs/routes.schema.json)."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from rabbitbal.routes.policy import Bots, Delivery, Mode, Redeliver
from rabbitbal.routes.table import LONGEST_KEY, MOST_WORDS

MOST_ROUTES = 10_000
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
KEY = rf"[A-Za-z0-9_-]{{1,64}}(\.[A-Za-z0-9_-]{{1,64}}){{0,{MOST_WORDS - 1}}}"
# RFC 9110 §5.6.2
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - it is HTTP's word
HOST = r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]"

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m)?")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_SIZE = re.compile(r"([0-9]+)\s*(B|KiB|MiB|GiB)?")
_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None or len(value) > 20:
            raise ValueError("must be seconds, or read like 500ms, 30s or 5m")
        return float(match[1]) * _DURATION_UNITS[match[2] or "s"]
    return value


def _octets(value: Any) -> Any:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None or len(value) > 20:
            raise ValueError("must be bytes, or read like 64KiB or 10MiB")
        return int(match[1]) * _SIZE_UNITS[match[2] or "B"]
    return value


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _one_or_many(pattern: str) -> dict[str, Any]:
    one = {"type": "string", "pattern": f"^({pattern})$"}
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": 100}]}


Duration = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m)?$"}]}),
]
Size = Annotated[
    int,
    BeforeValidator(_octets),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]+\s*(B|KiB|MiB|GiB)?$"}]}
    ),
]
Name = Annotated[str, Field(pattern=f"^({NAME})$")]
Key = Annotated[str, Field(pattern=f"^({KEY})$", max_length=LONGEST_KEY)]
Host = Annotated[str, Field(pattern=f"^({HOST})$", max_length=255)]
Method = Annotated[str, Field(pattern=f"^({TOKEN})$", max_length=64)]
Prefix = Annotated[str, Field(pattern=r"^/[^?#\s]*$", max_length=1000)]
Expression = Annotated[str, Field(min_length=1, max_length=1000)]
Token = Annotated[str, Field(pattern=f"^({TOKEN})$", max_length=100)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PatternPart(_Part):
    regex: Expression


class MatchPart(_Part):
    host: Annotated[list[Host], BeforeValidator(_listed), WithJsonSchema(_one_or_many(HOST))] = []
    path: Annotated[list[Prefix], BeforeValidator(_listed), WithJsonSchema(_one_or_many(r"/[^?#\s]*"))] = []
    path_regex: Annotated[list[Expression], BeforeValidator(_listed), WithJsonSchema(_one_or_many(".+"))] = []
    method: Annotated[list[Method], BeforeValidator(_listed), WithJsonSchema(_one_or_many(TOKEN))] = []
    headers: dict[Token, Annotated[str, Field(max_length=1000)] | PatternPart] = {}


class PathPart(_Part):
    path: int = Field(ge=1, le=MOST_WORDS)


class HedgePart(_Part):
    budget: Annotated[float, Field(gt=0, le=1)] = 0.03
    after: Annotated[
        Literal["p95"] | Duration,
        WithJsonSchema({"anyOf": [{"const": "p95"}, {"type": "number"}, {"type": "string", "pattern": r"^[0-9]"}]}),
    ] = "p95"


class StickyPart(_Part):
    cookie: Token | None = None
    header: Token | None = None
    issue: bool | None = None


class PolicyPart(_Part):
    """What `defaults` and a route have in common. None: not said."""

    mode: Annotated[Mode | None, Field(strict=False)] = None
    timeout: Annotated[Duration, Field(ge=0.1, le=1500)] | None = None
    body_limit: Annotated[Size, Field(ge=0)] | None = None
    redeliver: Annotated[Redeliver | None, Field(strict=False)] = None
    delivery: Annotated[Delivery | None, Field(strict=False)] = None
    sample: Annotated[float, Field(gt=0, le=1)] | None = None
    part_limit: Annotated[Size, Field(ge=1, le=64 << 20)] | None = None
    hedge: HedgePart | None = None
    sticky: StickyPart | None = None
    bots: Annotated[Bots | None, Field(strict=False)] = None


class RoutePart(PolicyPart):
    name: Name
    match: MatchPart = MatchPart()
    to: Key | list[Key] | PathPart | None = None


class DocumentPart(_Part):
    version: Literal[1]
    defaults: PolicyPart = PolicyPart()
    routes: list[RoutePart] = Field(min_length=1, max_length=MOST_ROUTES)


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the file. What compares one part with another is not in it."""
    found = DocumentPart.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rabbitbal's table of routes",
        **{name: part for name, part in found.items() if name not in ("title", "description")},
    }
