"""What the client and the application of one request should see behind the proxy: begun as what they saw without it."""

import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any

from integration.differential.case import Field
from integration.differential.observation import Observation, Seen

# How a client is shown in fields, whatever its address is.
CLIENT = "CLIENT"
ERROR = b"rabbitbal-error"
WORDS = re.compile(rb"rabbitbal: ([a-z-]+): [^\n]+\n")

Pair = list[str]


@dataclass
class Expectation:
    """One side of a case, in a form that can be compared. Names of fields are lower case (RFC 9110 §5.1)."""

    status: int
    fields: list[Field]
    body: bytes
    ending: str
    interim: list[int]
    follow: str
    follows: int
    runs: list[Seen]

    def values(self, name: bytes) -> list[bytes]:
        return [value for other, value in self.fields if other == name]

    def drop(self, dropped: Callable[[bytes], bool]) -> None:
        self.fields = [field for field in self.fields if not dropped(field[0])]

    def copy(self, other: "Expectation") -> None:
        for field in fields(self):
            setattr(self, field.name, deepcopy(getattr(other, field.name)))

    def refuse(self, status: int, reason: str, method: bytes) -> None:
        """Rabbitbal's own answer instead, and the application has not run."""
        self.fail(status, reason, method)
        self.interim, self.runs = [], []

    def fail(self, status: int, reason: str, method: bytes) -> None:
        """Rabbitbal's own answer instead."""
        words = b"" if method == b"HEAD" else b"rabbitbal: " + reason.encode()
        self.status, self.body, self.ending = status, words, "complete"
        self.fields = [(ERROR, reason.encode())]

    def differences(self, other: "Expectation") -> list[tuple[str, Any, Any]]:
        """Name, this one's, the other's."""
        found = []
        for field in fields(self):
            mine, its = getattr(self, field.name), getattr(other, field.name)
            if field.name == "runs" and len(mine) == len(its):
                for run, its_run in zip(mine, its, strict=True):
                    found += [
                        (f"the application's {name}", run.get(name), its_run.get(name))
                        for name in {**run, **its_run}
                        if run.get(name) != its_run.get(name)
                    ]
            elif mine != its:
                found.append((field.name, mine, its))
        return found


def observed(observation: Observation, client: str | None = None) -> Expectation:
    """``client``: the address that the proxy sees the test come from; None where there is no proxy."""
    answer = observation.answer
    found = Expectation(
        answer.status,
        [(name.lower(), value) for name, value in answer.fields],
        answer.body,
        answer.ending,
        list(answer.interim),
        answer.follow,
        observation.follows,
        [_shown(run, client) for run in observation.runs],
    )
    if client is not None and found.values(ERROR):
        # Rabbitbal's own words: for people.
        if matched := WORDS.fullmatch(found.body):
            found.body = b"rabbitbal: " + matched[1]
        own = (b"server", b"date", b"content-type", b"content-length", b"cache-control", b"retry-after", b"via")
        found.fields = [field for field in found.fields if field[0] not in own]
    return found


def _shown(run: Seen, client: str | None) -> Seen:
    if client is None:
        return run
    address = re.compile(rf"(?<![\d.]){re.escape(client)}(?![\d.])")
    return {**run, "headers": [[name, address.sub(CLIENT, value)] for name, value in run["headers"]]}


def first(pairs: Iterable[Pair], name: str) -> str | None:
    return next((value for other, value in pairs if other == name), None)
