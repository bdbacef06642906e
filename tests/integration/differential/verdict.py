"""What differs between the two sides of all cases, and which rules of the table it took."""

import re
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from integration.differential.case import Case
from integration.differential.expectation import observed
from integration.differential.observation import Observation
from integration.differential.rules import RULES, expected

Pair = tuple[Observation, ...]

SHOWN = 1500


@dataclass
class Verdict:
    """``faults``: for each case that differs, all about it."""

    used: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def stale(self) -> list[str]:
        return [rule.name for rule in RULES if not self.used[rule.name]]

    def table(self) -> str:
        return "\n".join(f"{self.used[rule.name]:6}  {rule.name}: {rule.why}" for rule in RULES)


def verdict(cases: Iterable[Case], seen: dict[str, Pair], client: str) -> Verdict:
    """``client``: the address that the proxy sees the test come from."""
    found = Verdict()
    for case in cases:
        direct, through = seen[case.key]
        answer = observed(through, client)
        wanted, used = expected(case, observed(direct), answer)
        found.used.update(used)
        if differences := wanted.differences(answer):
            found.kinds.update(f"{case.family}: {name}" for name, _, _ in differences)
            found.faults.append(_told(case, direct, through, differences))
    return found


def _told(case: Case, direct: Observation, through: Observation, differences: list[tuple[str, Any, Any]]) -> str:
    lines = [f"--- case {case.key}, {case.family}"]
    for name, wanted, got in differences:
        lines += [f"{name}: expected {_short(wanted)}", f"{' ' * len(name)}       seen {_short(got)}"]
    message = case.message()
    lines += [
        f"request: {_short(message)}",
        f"repeat: printf {shlex.quote(_octal(message[:4000]))} | nc HOST PORT"
        + "  # the start" * (len(message) > 4000),
        f"direct:  {_short(direct)}",
        f"through: {_short(through)}",
    ]
    return "\n".join(lines)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def _octal(message: bytes) -> str:
    """For printf of any shell."""
    text = message.decode("latin-1").replace("\\", "\\\\").replace("%", "%%").replace("\r", "\\r").replace("\n", "\\n")
    return re.sub(r"[^\x20-\x7e]", lambda matched: f"\\{ord(matched[0]):03o}", text)
