"""What a client calls itself: the list that the package `crawler-user-agents` keeps, and ours of scanners."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from crawleruseragents import CRAWLER_USER_AGENTS_DATA

from rabbitbal.tap.bots.probes import shipped

LONGEST = 256
# The list's words for programs that tell what they are made with, and not whose they are.
_ANYBODYS = frozenset({"http-library", "browser-automation"})
# How those crawlers sign that are in no list: "(compatible; Name/1.0; +https://example.com/bot)".
_SIGNED = re.compile(r"compatible;[^)]{0,80}\+?https?://")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9 ._-]{1,30}")
_BROWSER = re.compile(r"^Mozilla/5\.0 .*(Chrome/|Firefox/|Safari/|Gecko)")
_CHUNK = 25


class Calling(Enum):
    NOTHING = "nothing"
    BROWSER = "browser"
    # A program that anybody may have written: curl, python-requests, a browser that is driven.
    PROGRAM = "program"
    # It says whose crawler it is.
    CRAWLER = "crawler"
    # A tool that is made for scanning.
    SCANNER = "scanner"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Agent:
    calling: Calling
    name: str


def _compiled() -> list[tuple[re.Pattern[str], list[tuple[re.Pattern[str], frozenset[str]]]]]:
    """In pieces, each with an alternation of its own: that one finds nothing is known sooner than by asking for all."""
    known = [(re.compile(one["pattern"]), frozenset(one.get("tags", ()))) for one in CRAWLER_USER_AGENTS_DATA]
    pieces = [known[start : start + _CHUNK] for start in range(0, len(known), _CHUNK)]
    return [(re.compile("|".join(pattern.pattern for pattern, _ in piece)), piece) for piece in pieces]


_KNOWN = _compiled()


@lru_cache(4096)
def agent_of(text: str) -> Agent:
    """``text`` is what the client sends, cut at ``LONGEST``. Nobody proves what he calls himself."""
    text = text[:LONGEST].strip()
    if not text:
        return Agent(Calling.NOTHING, "")
    if shipped().names(text):
        return Agent(Calling.SCANNER, _name(text))
    for either, piece in _KNOWN:
        if either.search(text):
            for pattern, tags in piece:
                if found := pattern.search(text):
                    anybodys = bool(tags & _ANYBODYS)
                    return Agent(Calling.PROGRAM if anybodys else Calling.CRAWLER, _name(found[0]))
    if _SIGNED.search(text):
        return Agent(Calling.CRAWLER, _name(text.partition("compatible;")[2].strip()))
    return Agent(Calling.BROWSER if _BROWSER.match(text) else Calling.OTHER, _name(text))


def poses(text: str) -> bool:
    """Whether it calls itself a browser, and nothing else; without asking the list, which is asked later and seldom."""
    return _BROWSER.match(text) is not None and "compatible;" not in text and "http" not in text


def _name(text: str) -> str:
    found = _NAME.search(text)
    return found[0].strip() if found else "something"
