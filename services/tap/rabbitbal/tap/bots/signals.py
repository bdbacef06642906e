"""What speaks against a client: each signal with its weight, how strong it is, and the sentence that says so.

Signals are put together as if they were independent: the score is 1 - (1 - w1 s1)(1 - w2 s2)…, with weights w and
strengths s from 0 to 1. So one weak signal stays weak, several add up, and each can be told with its own part.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rabbitbal.tap.bots.agents import Agent, Calling
from rabbitbal.tap.bots.history import Count, Facts

# A burst is not yet a rate: one page of a browser may be twenty requests in a second.
_SHORTEST = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """``part`` is weight times strength, from 0 to 1."""

    signal: str
    part: float
    text: str


@dataclass(frozen=True, slots=True)
class Signal:
    name: str
    weight: float
    measure: Callable[[Facts, Agent], tuple[float, str]]
    """The strength from 0 to 1, and the sentence."""
    declared: bool = False
    """It counts against a crawler that says whose it is, too."""


def ramp(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, a line between."""
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _rate(facts: Facts, agent: Agent) -> tuple[float, str]:
    rate = facts[Count.PAGES] / max(facts.span, _SHORTEST)
    return ramp(rate, 1.0, 5.0), f"{_many(facts[Count.PAGES], 'page')} in {facts.span:.0f} s, {rate:.1f} each second"


def _errors(facts: Facts, agent: Agent) -> tuple[float, str]:
    errors, share = facts[Count.ERRORS], facts.share(Count.ERRORS, Count.ANSWERS)
    strength = ramp(errors, 2, 10) * ramp(share, 0.15, 0.6)
    return strength, f"{errors} of {facts[Count.ANSWERS]} answers were errors, {share:.0%}"


def _guesses(facts: Facts, agent: Agent) -> tuple[float, str]:
    number = facts[Count.GUESSES]
    text = f"{_many(number, 'request')} for what scanners look for and is not here, like {facts.example}"
    return ramp(number, 0, 4), text


def _attacks(facts: Facts, agent: Agent) -> tuple[float, str]:
    number = facts[Count.ATTACKS]
    # A search for odd words looks like one now and then.
    text = f"{_many(number, 'request')} with an attack in it (a path out of the root, SQL, a script or a command)"
    return ramp(number, 0, 3), text


def _robots(facts: Facts, agent: Agent) -> tuple[float, str]:
    number = facts[Count.DISALLOWED]
    text = f"{_many(number, 'request')} that robots.txt disallows, like {facts.forbidden}"
    return ramp(number, 0, 4), text + (", which it has read" if facts.read_robots else "")


def _headers(facts: Facts, agent: Agent) -> tuple[float, str]:
    lacking = facts[Count.LACKING] / max(facts[Count.REQUESTS], 1)
    strength = ramp(lacking, 0.5, 2.0) * ramp(facts[Count.REQUESTS], 2, 8)
    return (
        strength,
        f"{lacking:.1f} of the 4 fields missing that each browser sends (Accept, -Language, -Encoding, agent)",
    )


def _posing(facts: Facts, agent: Agent) -> tuple[float, str]:
    number, share = facts[Count.POSING], facts.share(Count.POSING, Count.REQUESTS)
    return ramp(
        number, 1, 8
    ) * share, f"calls itself a browser in {_many(number, 'request')} that lack what browsers send"


def _agent(facts: Facts, agent: Agent) -> tuple[float, str]:
    if agent.calling is Calling.NOTHING:
        return ramp(facts[Count.REQUESTS], 2, 8), "does not say what it is (no User-Agent)"
    return (1.0 if agent.calling is Calling.PROGRAM else 0.0), f"is a program by its own word ({agent.name})"


def _scanner(facts: Facts, agent: Agent) -> tuple[float, str]:
    return (1.0 if agent.calling is Calling.SCANNER else 0.0), f"calls itself {agent.name}, a tool that scans"


def _fanout(facts: Facts, agent: Agent) -> tuple[float, str]:
    return ramp(facts.paths, 20, 80), f"about {facts.paths} different pages in {facts.span:.0f} s"


def _methods(facts: Facts, agent: Agent) -> tuple[float, str]:
    number, share = facts[Count.ODD], facts.share(Count.ODD, Count.REQUESTS)
    return ramp(number, 2, 8) * ramp(
        share, 0.1, 0.5
    ), f"{_many(number, 'request')} by HEAD or a method that no page uses"


def _assets(facts: Facts, agent: Agent) -> tuple[float, str]:
    pages, assets = facts[Count.HTML], facts[Count.ASSETS]
    strength = ramp(pages, 4, 15) * (1.0 - ramp(assets / max(pages, 1), 0.02, 0.2))
    return strength, f"{pages} pages of HTML and {assets or 'none'} of their pictures, styles and scripts"


def _links(facts: Facts, agent: Agent) -> tuple[float, str]:
    number, share = facts[Count.UNLINKED], facts.share(Count.UNLINKED, Count.HTML)
    return ramp(number, 4, 15) * ramp(share, 0.5, 0.95), f"came to {number} of {facts[Count.HTML]} pages by no link"


SIGNALS = (
    Signal("attacks", 0.95, _attacks, declared=True),
    Signal("guesses", 0.9, _guesses, declared=True),
    Signal("scanner", 0.85, _scanner),
    Signal("robots", 0.7, _robots, declared=True),
    Signal("posing", 0.6, _posing),
    Signal("errors", 0.5, _errors),
    Signal("rate", 0.5, _rate),
    Signal("fanout", 0.45, _fanout),
    Signal("assets", 0.4, _assets),
    Signal("headers", 0.35, _headers),
    Signal("links", 0.3, _links),
    Signal("agent", 0.3, _agent),
    Signal("methods", 0.3, _methods),
)


def findings(facts: Facts, agent: Agent) -> list[Finding]:
    """Those that speak against the client, the strongest first."""
    return sorted(_measured(facts, agent), key=lambda finding: -finding.part)


def _measured(facts: Facts, agent: Agent) -> Iterator[Finding]:
    for signal in SIGNALS:
        if signal.declared or agent.calling is not Calling.CRAWLER:
            strength, text = signal.measure(facts, agent)
            if strength > 0:
                yield Finding(signal.name, signal.weight * strength, text)


def score(found: list[Finding]) -> float:
    left = 1.0
    for finding in found:
        left *= 1 - finding.part
    return 1 - left
