"""The table: ordered routes, the first that matches counts, found without asking each."""

import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rabbitbal.routes.match import Match, host_matches, prefix_matches
from rabbitbal.routes.policy import Policy
from rabbitbal.routes.question import Question
from rabbitbal.wire import topology

# Of a key: so it stays within the 255 bytes of AMQP's routing key, with what may be put before it.
MOST_WORDS = 8
LONGEST_WORD = 64
LONGEST_KEY = 200

_NO_WORD = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Route:
    """A rule. ``to`` are its keys; with ``depth`` the key is made of so many segments of the path instead. ``line`` is
    where it stands in its file, from 1; 0 where it stands in none."""

    name: str
    match: Match
    policy: Policy
    to: tuple[str, ...]
    depth: int | None = None
    line: int = 0

    def keys(self, question: Question) -> tuple[str, ...]:
        """The routing keys of a request, without `request.`: one, or one for each copy."""
        return self.to if self.depth is None else (path_key(question.path, self.depth),)


def path_key(path: str, depth: int) -> str:
    """Words of the first segments of a path; ``root`` where there is none."""
    segments = [segment for segment in path.split("/", depth + 1)[1 : depth + 1] if segment]
    words = [_NO_WORD.sub("_", segment)[:LONGEST_WORD] for segment in segments]
    key = ".".join(words) or "root"
    return key[:LONGEST_KEY].rstrip(".")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a place in the file. ``line`` and ``column`` count from 1."""

    line: int
    column: int
    where: str
    text: str

    def told(self, source: str) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{source}:{self.line}:{self.column}: {where}{self.text}"


@dataclass(frozen=True, slots=True)
class Step:
    """One route that was looked at: ``matched``, or ``why`` not."""

    route: Route
    matched: bool
    why: str


class Table:
    """Its last route matches everything. ``digest`` is the SHA-256 of its text, in hexadecimal."""

    def __init__(
        self, routes: tuple[Route, ...], digest: str = "", source: str = "", warnings: tuple[Problem, ...] = ()
    ) -> None:
        self.routes = routes
        self.digest = digest
        self.source = source
        self.warnings = warnings
        # By host (exact, ".suffix" or "" for any) and by path prefix ("" for any): the numbers of the routes there.
        self._index: dict[str, dict[str, list[int]]] = {}
        for number, route in enumerate(routes):
            for host in route.match.hosts or ("",):
                places = self._index.setdefault(host.removeprefix("*"), {})
                for prefix in route.match.prefixes or ("",):
                    places.setdefault(prefix, []).append(number)
        # A stranger may send a path of a thousand segments; none deeper than our own is of interest.
        prefixes = [prefix for places in self._index.values() for prefix in places]
        self._depth = max((prefix.count("/") for prefix in prefixes), default=0)
        self._labels = max((host.count(".") for host in self._index), default=0)

    def find(self, question: Question) -> Route:
        """The first route that matches. The time depends on the depths of host and path, and on how many routes share
        one host and prefix, but not on how many there are."""
        found = self._candidates(question)
        for number in found[0] if len(found) == 1 else heapq.merge(*found):
            route = self.routes[number]
            if route.match.rest_holds(question):
                return route
        raise AssertionError("the last route matches everything")

    def _candidates(self, question: Question) -> list[list[int]]:
        prefixes = self._prefixes(question.path)
        found = []
        for host in self._hosts(question.host):
            places = self._index.get(host)
            if places is not None:
                found += [places[prefix] for prefix in prefixes if prefix in places]
        return found

    def _hosts(self, host: str) -> Iterator[str]:
        yield ""
        if len(self._index) > 1 and host:
            yield host
            labels = host.rsplit(".", self._labels)
            for start in range(1, len(labels)):
                yield "." + ".".join(labels[start:])

    def _prefixes(self, path: str) -> list[str]:
        prefixes = [""]
        end = 0
        while len(prefixes) <= self._depth:
            end = path.find("/", end + 1)
            if end < 0:
                prefixes.append(path)
                break
            prefixes.append(path[:end])
        return prefixes

    def explain(self, question: Question) -> list[Step]:
        """Each route up to the one that matches."""
        steps: list[Step] = []
        for route in self.routes:
            if route.match.holds(question):
                return [*steps, Step(route, True, str(route.match))]
            steps.append(Step(route, False, "; ".join(route.match.failures(question))))
        raise AssertionError("the last route matches everything")


def shadows(earlier: Match, later: Match) -> bool:
    """Whether the earlier certainly matches all that the later does. Only plain cases are known."""
    return (
        _wider(earlier.hosts, later.hosts, _host_covers)
        and _wider(earlier.prefixes, later.prefixes, prefix_matches)
        and _wider(earlier.methods, later.methods, str.__eq__)
        and _wider(_texts(earlier), _texts(later), str.__eq__)
        and {str(header) for header in earlier.headers} <= {str(header) for header in later.headers}
    )


def _wider(wide: tuple[str, ...], narrow: tuple[str, ...], covers: Callable[[str, str], bool]) -> bool:
    return not wide or (bool(narrow) and all(any(covers(each, one) for each in wide) for one in narrow))


def _texts(match: Match) -> tuple[str, ...]:
    return tuple(pattern.pattern for pattern in match.patterns)


def _host_covers(wide: str, one: str) -> bool:
    return wide == one or host_matches(wide, one.removeprefix("*"))


BUILT_IN = Table((Route(topology.DEFAULT_ROUTE, Match(), Policy(), (topology.DEFAULT_ROUTE,)),), source="built in")
