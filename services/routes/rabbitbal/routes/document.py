"""From the text of a file of routes to a table, or to all that is wrong with it."""

import difflib
import hashlib
from collections.abc import Iterator
from typing import Any

import re2
from pydantic import ValidationError

from rabbitbal.routes.match import Header, Match, Pattern
from rabbitbal.routes.policy import Bots, Delivery, Hedge, Mode, Policy, Redeliver, Sticky
from rabbitbal.routes.question import host_of, path_of
from rabbitbal.routes.schema import (
    DocumentPart,
    MatchPart,
    PathPart,
    PatternPart,
    PolicyPart,
    RoutePart,
    StickyPart,
)
from rabbitbal.routes.table import Problem, Route, Table, shadows
from rabbitbal.routes.tree import Path, Tree, Unreadable, dotted, parse

MOST_COPIES = 8
MOST_PROBLEMS = 50
# A pattern's memory, in bytes; larger ones do not compile.
PATTERN_MEMORY = 1 << 20
# So much comparing of routes with earlier ones is worth a warning.
MOST_COMPARED = 300
GENEROUS_BUDGET = 0.2

_OPTIONS = re2.Options()
_OPTIONS.max_mem = PATTERN_MEMORY
_OPTIONS.log_errors = False
_UNKNOWN = "extra_forbidden"
_SHAPES = frozenset({"string_type", "list_type", "model_type", "dict_type", "literal_error"})


class RoutesError(ValueError):
    """The file is no table. ``problems`` are in the order of the text; str() is a line for each."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column))
        shown = [problem.told(source) for problem in self.problems[:MOST_PROBLEMS]]
        if len(problems) > MOST_PROBLEMS:
            shown.append(f"{source}: and {len(problems) - MOST_PROBLEMS} more")
        super().__init__("\n".join(shown))


def load(text: bytes, source: str) -> Table:
    """The table that the text describes; ``source`` is what messages call it. Raises RoutesError with every problem."""
    try:
        tree = parse(text)
    except Unreadable as error:
        raise RoutesError(source, [error.problem]) from None
    if not isinstance(tree.value, dict):
        said = "is empty" if tree.value is None else "is not a mapping"
        raise RoutesError(source, [*tree.problems, Problem(1, 1, "", f"the file {said}; it begins `version: 1`")])
    try:
        document = DocumentPart.model_validate(tree.value)
    except ValidationError as error:
        raise RoutesError(source, [*tree.problems, *_told(tree, error)]) from None
    builder = _Builder(document, tree)
    routes = builder.routes()
    problems = tree.problems + builder.problems
    if problems:
        raise RoutesError(source, problems)
    return Table(routes, hashlib.sha256(text).hexdigest(), source, tuple(_warnings(routes)))


def _told(tree: Tree, error: ValidationError) -> Iterator[Problem]:
    """What pydantic found, in our words and at its place."""
    places: dict[Path, list[Any]] = {}
    for found in error.errors(include_url=False):
        places.setdefault(_path(tree, found["loc"]), []).append(found)
    for path, all_found in places.items():
        # Where one of several shapes is allowed, pydantic tells why it is none of them. What it was not meant to be is
        # no news.
        meant = [found for found in all_found if found["type"] not in _SHAPES] or all_found[:1]
        for text, found in {_text(found): found for found in meant}.items():
            place = tree.place(path)
            if found["type"] == _UNKNOWN:
                place = tree.names.get(path, place)
            yield Problem(*place, dotted(path), text)


def _path(tree: Tree, location: tuple[int | str, ...]) -> Path:
    """The place in the text: pydantic names the shapes of a choice as if they were parts of it."""
    path: Path = ()
    for part in location:
        if (*path, part) in tree.places:
            path = (*path, part)
    return path


def _text(found: Any) -> str:
    kind, context, value = found["type"], found.get("ctx", {}), found.get("input")
    if kind == _UNKNOWN:
        return _unknown(str(found["loc"][-1]), found["loc"])
    if kind == "missing":
        return f"{found['loc'][-1]!r} is missing"
    shown = repr(value)[:60] if isinstance(value, str | int | float | bool) else ""
    texts = {
        "string_pattern_mismatch": f"{shown} is not well formed",
        "string_type": f"{shown or 'this'} must be a text; put it in quotes",
        "model_type": "must be a mapping",
        "dict_type": "must be a mapping",
        "list_type": "must be a list",
        "literal_error": f"must be {context.get('expected')}",
        "enum": f"{shown} must be {context.get('expected')}",
        "value_error": f"{shown} {context.get('error')}",
    }
    return str(texts.get(kind, found["msg"][:1].lower() + found["msg"][1:]))


def _unknown(name: str, location: tuple[int | str, ...]) -> str:
    model: Any = DocumentPart
    if location[:1] == ("defaults",):
        model = PolicyPart
    elif location[:1] == ("routes",):
        model = MatchPart if "match" in location[:-1] else RoutePart
    if location[-2:-1] and location[-2] in ("hedge", "sticky"):
        known = ["budget", "after"] if location[-2] == "hedge" else ["cookie", "header", "issue"]
    else:
        known = list(model.model_fields)
    close = difflib.get_close_matches(name, known, 1)
    return f"{name[:60]!r} is not known" + (
        f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
    )


class _Builder:
    """Makes routes of parts, and finds what no single part can tell."""

    def __init__(self, document: DocumentPart, tree: Tree) -> None:
        self._document = document
        self._tree = tree
        self.problems: list[Problem] = []

    def routes(self) -> tuple[Route, ...]:
        routes = []
        names: dict[str, int] = {}
        last = len(self._document.routes) - 1
        for number, part in enumerate(self._document.routes):
            at: Path = ("routes", number)
            if part.name in names:
                self._wrong((*at, "name"), f"the name {part.name!r} is taken by routes[{names[part.name]}]")
            names.setdefault(part.name, number)
            route = self._route(part, at)
            if route.match.everything != (number == last):
                self._wrong(
                    at,
                    "the last route must match everything: add `- name: default` behind it"
                    if number == last
                    else "this route matches everything, so those behind it are never reached",
                )
            routes.append(route)
        return tuple(routes)

    def _wrong(self, path: Path, text: str) -> None:
        self.problems.append(Problem(*self._tree.place(path), dotted(path), text))

    def _route(self, part: RoutePart, at: Path) -> Route:
        policy = self._policy(part, at)
        match = self._match(part.match, (*at, "match"))
        to, depth = self._keys(part, policy.mode, at)
        return Route(part.name, match, policy, to, depth, self._tree.place(at)[0])

    def _keys(self, part: RoutePart, mode: Mode, at: Path) -> tuple[tuple[str, ...], int | None]:
        where = (*at, "to")
        if isinstance(part.to, PathPart):
            if mode is not Mode.ONE:
                self._wrong(where, f"mode {mode} needs a list of keys")
            return (), part.to.path
        keys = tuple(part.to) if isinstance(part.to, list) else (part.to or part.name,)
        if mode is Mode.ONE and len(keys) != 1:
            self._wrong(where, f"mode one has one key, not {len(keys)}; several need the mode first, all or shadow")
        elif mode is not Mode.ONE and not 2 <= len(keys) <= MOST_COPIES:
            self._wrong(where, f"mode {mode} needs a list of 2 to {MOST_COPIES} keys, not {len(keys)}")
        if len(set(keys)) != len(keys):
            self._wrong(where, "a key is there twice")
        return keys, None

    def _policy(self, part: RoutePart, at: Path) -> Policy:
        defaults = self._document.defaults

        def said(name: str, otherwise: Any) -> Any:
            for source in (part, defaults):
                value = getattr(source, name)
                if value is not None:
                    return value
            return otherwise

        mode: Mode = said("mode", Mode.ONE)
        hedge, sticky = said("hedge", None), said("sticky", None)
        for name, value in (("hedge", hedge), ("sticky", sticky)):
            if value is not None and mode is not Mode.ONE:
                self._wrong((*at, name), f"{name} goes with mode one only")
        return Policy(
            timeout=said("timeout", None),
            body_limit=said("body_limit", None),
            redeliver=said("redeliver", Redeliver.AUTO),
            delivery=said("delivery", Delivery.TRANSIENT),
            mode=mode,
            sample=said("sample", 1.0),
            part_limit=said("part_limit", Policy().part_limit),
            hedge=Hedge(hedge.budget, None if hedge.after == "p95" else hedge.after) if hedge is not None else None,
            sticky=self._sticky(sticky, (*at, "sticky")) if sticky is not None else None,
            bots=said("bots", Bots.ALLOW),
        )

    def _sticky(self, part: StickyPart, at: Path) -> Sticky:
        if (part.cookie is None) == (part.header is None):
            self._wrong(at, "needs either a cookie or a header")
        if part.header is not None and part.issue:
            self._wrong(at, "only a cookie can be issued")
        return Sticky(part.cookie, part.header, part.cookie is not None and part.issue is not False)

    def _match(self, part: MatchPart, at: Path) -> Match:
        headers = []
        for name, wanted in part.headers.items():
            if isinstance(wanted, PatternPart):
                headers.append(Header(name, None, self._pattern(wanted.regex, (*at, "headers", name, "regex"))))
            else:
                headers.append(Header(name, wanted, None))
        return Match(
            hosts=tuple(host_of(host.encode()) for host in part.host),
            # "/" is below nothing: it holds for every path.
            prefixes=tuple(path_of(path.encode()).rstrip("/") for path in part.path),
            patterns=tuple(self._pattern(text, (*at, "path_regex", n)) for n, text in enumerate(part.path_regex)),
            methods=tuple(part.method),
            headers=tuple(headers),
        )

    def _pattern(self, text: str, at: Path) -> Pattern:
        try:
            compiled: Pattern = re2.compile(text, _OPTIONS)
        except re2.error as error:
            shown = error.args[0] if error.args else ""
            said = shown.decode("utf-8", "replace") if isinstance(shown, bytes) else str(shown)
            self._wrong(at, f"not a pattern of RE2: {said}")
            compiled = re2.compile("")
        return compiled


def _warnings(routes: tuple[Route, ...]) -> Iterator[Problem]:
    for number, route in enumerate(routes):
        where = f"routes[{number}]"
        mode = route.policy.mode
        if mode is not Mode.ONE and not route.match.methods:
            yield Problem(
                route.line,
                1,
                where,
                f"mode {mode} copies every method, POST too: limit it with `method` if it should not",
            )
        if route.policy.hedge is not None and route.policy.hedge.budget > GENEROUS_BUDGET:
            yield Problem(
                route.line, 1, where, f"a budget of {route.policy.hedge.budget:g} may send every request twice"
            )
        for earlier in routes[max(0, number - MOST_COMPARED) : number]:
            if shadows(earlier.match, route.match):
                yield Problem(
                    route.line, 1, where, f"never reached: {earlier.name!r} in line {earlier.line} matches all of it"
                )
                break
