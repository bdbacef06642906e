"""The conditions of a route. All that are given must hold; of a list, one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from rabbitbal.routes.question import Question
from rabbitbal.wire.fields import values


class Pattern(Protocol):
    """A compiled RE2 expression."""

    @property
    def pattern(self) -> str: ...

    def search(self, text: str) -> object | None: ...


@dataclass(frozen=True, slots=True)
class Header:
    """One of the values of the field ``name`` is ``value``, or is matched somewhere by ``pattern``."""

    name: str
    value: str | None
    pattern: Pattern | None

    def holds(self, question: Question) -> bool:
        found = (value.decode("latin-1") for value in values(question.fields, self.name.lower().encode()))
        if self.pattern is not None:
            return any(self.pattern.search(text) is not None for text in found)
        return any(text == self.value for text in found)

    def __str__(self) -> str:
        return f"{self.name} ~ {self.pattern.pattern}" if self.pattern is not None else f"{self.name}: {self.value}"


@dataclass(frozen=True, slots=True)
class Match:
    """``hosts`` are in lower case, exact or like ``*.example.com``; ``prefixes`` have no final slash."""

    hosts: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[Header, ...] = field(default=())

    @property
    def everything(self) -> bool:
        return not (self.hosts or self.prefixes or self.patterns or self.methods or self.headers)

    def holds(self, question: Question) -> bool:
        """Whether all conditions hold."""
        return (
            (not self.hosts or any(host_matches(host, question.host) for host in self.hosts))
            and (not self.prefixes or any(prefix_matches(prefix, question.path) for prefix in self.prefixes))
            and self.rest_holds(question)
        )

    def rest_holds(self, question: Question) -> bool:
        """The same, where host and prefix are known to hold."""
        return (
            (not self.methods or question.method in self.methods)
            and (not self.patterns or any(p.search(question.path) is not None for p in self.patterns))
            and all(header.holds(question) for header in self.headers)
        )

    def failures(self, question: Question) -> Iterator[str]:
        """In words, what does not hold."""
        if self.hosts and not any(host_matches(host, question.host) for host in self.hosts):
            yield f"host {question.host or '(none)'} is not {_or(self.hosts)}"
        if self.prefixes and not any(prefix_matches(prefix, question.path) for prefix in self.prefixes):
            yield f"path {question.path} is not below {_or(tuple(prefix or '/' for prefix in self.prefixes))}"
        if self.patterns and not any(p.search(question.path) is not None for p in self.patterns):
            yield f"path {question.path} does not match {_or(tuple(p.pattern for p in self.patterns))}"
        if self.methods and question.method not in self.methods:
            yield f"method {question.method} is not {_or(self.methods)}"
        for header in self.headers:
            if not header.holds(question):
                yield f"no header {header}"

    def __str__(self) -> str:
        parts = []
        if self.hosts:
            parts.append(f"host {_or(self.hosts)}")
        if self.prefixes:
            parts.append(f"path {_or(tuple(prefix or '/' for prefix in self.prefixes))}")
        if self.patterns:
            parts.append(f"path ~ {_or(tuple(p.pattern for p in self.patterns))}")
        if self.methods:
            parts.append(f"method {_or(self.methods)}")
        parts += [f"header {header}" for header in self.headers]
        return ", ".join(parts) or "everything"


def host_matches(wanted: str, host: str) -> bool:
    """``*.example.com`` stands for one or more labels before ``.example.com``."""
    if wanted.startswith("*."):
        return host.endswith(wanted[1:]) and len(host) >= len(wanted)
    return host == wanted


def prefix_matches(prefix: str, path: str) -> bool:
    """On the border of a segment: ``/a`` is one of ``/a`` and ``/a/b``, not of ``/ab``; the empty one of everything."""
    return not prefix or (path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/"))


def _or(texts: tuple[str, ...]) -> str:
    return " or ".join(texts)
