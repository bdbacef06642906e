"""What scanners ask for: a list of ours, in probes.txt."""

import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote_plus

LIST = Path(__file__).parent / "probes.txt"
_SECTIONS = ("guess", "attack", "agent")
# Of a target. A pattern's time is bounded by this, as none has nested repeats.
_LONGEST = 512
# Each attack has one of these, and most targets have none: they are not asked for all patterns.
_NOT_PLAIN = re.compile(r"""[%'"<>;|`$+(:\\]|\.\.|/etc/|/proc/|win\.ini|information_schema""")
_UNSEEMLY = re.compile(r"[^\x21-\x7e]")


class Probes:
    """The list, read once. Raises ValueError for what is none."""

    def __init__(self, text: str) -> None:
        found: dict[str, list[str]] = {name: [] for name in _SECTIONS}
        section = ""
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if line.startswith("[") and line[1:-1] in found:
                section = line[1:-1]
            elif line and not line.startswith("#"):
                if not section:
                    raise ValueError(f"line {number}: a pattern before the first section")
                found[section].append(line)
        self._guess, self._attack, self._agent = (
            re.compile("|".join(f"(?:{pattern})" for pattern in found[name]), re.IGNORECASE) for name in _SECTIONS
        )

    def guesses(self, path: str) -> bool:
        """Whether scanners ask for this, and people only where there is such a page."""
        return self._guess.search(path[:_LONGEST]) is not None

    def attacks(self, target: str) -> bool:
        """Whether nobody asks for this who means well; ``target`` with its query."""
        target = target[:_LONGEST]
        if not _NOT_PLAIN.search(target):
            return False
        if self._attack.search(target):
            return True
        return ("%" in target or "+" in target) and self._attack.search(unquote_plus(target)) is not None

    def names(self, agent: str) -> bool:
        """Whether it is a tool that is made for scanning, by its own word."""
        return self._agent.search(agent) is not None


@lru_cache(1)
def shipped() -> Probes:
    return Probes(LIST.read_text())


def shown(path: str) -> str:
    """A path in a sentence: short, and printable."""
    return _UNSEEMLY.sub("?", path[:60])
