"""The scorer: what clients do goes in, verdicts come out. Pure; its clock is the caller's."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from rabbitbal.tap.bots.agents import Agent, Calling, agent_of
from rabbitbal.tap.bots.history import Facts, History
from rabbitbal.tap.bots.signals import Finding, findings, score
from rabbitbal.wire.verdicts import LONGEST_REASON, MOST_REASONS, Suspicion, Verdict

# Clients that are judged in one go: some 20 µs each, during which the tap reads nothing.
MOST_JUDGED = 500
# Clients that are looked through for crawlers, when somebody asks.
_NEWEST = 2000
# A finding below this is no reason worth a sentence.
_WORTH = 0.05
# What makes a client a suspect must fall to this share of the threshold before it begins to be forgotten.
_RELIEF = 0.7


@dataclass(frozen=True, slots=True)
class Judgement:
    """One client, looked at closely."""

    facts: Facts
    agent: Agent
    findings: list[Finding]
    score: float


class Scorer:
    """At most ``limit`` clients are remembered; who was not seen for longest is forgotten, and any verdict of him.

    A client becomes a suspect when its score reaches ``threshold``, and stays one for ``lasting`` seconds. While its
    score is not well below the threshold the time begins anew, so a verdict does not come and go. Whom ``trusted``
    names is never one.
    """

    def __init__(
        self,
        limit: int,
        window: float,
        threshold: float,
        lasting: float,
        trusted: Callable[[str], bool] = lambda client: False,
    ) -> None:
        self.window = window
        self.threshold = threshold
        self._limit = limit
        self._lasting = lasting
        self._trusted = trusted
        self._clients: OrderedDict[str, History] = OrderedDict()
        self._unjudged: dict[str, None] = {}
        self._suspects: OrderedDict[str, Verdict] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._clients)

    def history(self, client: str, now: float) -> History:
        """Of a client that does something now; the caller counts what."""
        found = self._clients.get(client)
        if found is None:
            found = self._clients[client] = History(now)
            if len(self._clients) > self._limit:
                oldest, _ = self._clients.popitem(last=False)
                self._unjudged.pop(oldest, None)
                self._suspects.pop(oldest, None)
                self.forgotten += 1
        else:
            self._clients.move_to_end(client)
        found.advance(now, self.window)
        self._unjudged[client] = None
        return found

    def known(self, client: str) -> History | None:
        """Of a client whose request was seen; it does nothing now."""
        return self._clients.get(client)

    def judge(self, now: float) -> list[Verdict]:
        """Look at those that have done something since they were looked at last, and let verdicts end. Gives the new
        suspects. ``now`` is in seconds since the Unix epoch."""
        moment = int(now * 1000)
        for client in [name for name, verdict in self._suspects.items() if verdict.until <= moment]:
            del self._suspects[client]
        found = []
        for client in list(self._unjudged)[:MOST_JUDGED]:
            del self._unjudged[client]
            known = self._suspects.get(client)
            verdict = self._verdict(client, known, moment)
            if verdict is not None:
                self._suspects[client] = verdict
                if known is None:
                    found.append(verdict)
        return found

    def look(self, client: str) -> Judgement | None:
        history = self._clients.get(client)
        if history is None:
            return None
        facts = history.facts(self.window)
        agent = agent_of(facts.agent)
        found = findings(facts, agent)
        return Judgement(facts, agent, found, score(found))

    def suspects(self, now: float) -> list[Verdict]:
        """Those in force, the newest first."""
        moment = int(now * 1000)
        return [verdict for verdict in reversed(self._suspects.values()) if verdict.until > moment]

    def crawlers(self) -> Iterator[tuple[str, Agent]]:
        """Those that say whose they are, who came last first."""
        for client, history in islice(reversed(self._clients.items()), _NEWEST):
            agent = agent_of(history.agent)
            if agent.calling is Calling.CRAWLER and client not in self._suspects:
                yield client, agent

    def verdict(self, client: str, now: float) -> Verdict | None:
        """What is thought of a client; None for one that is not known."""
        moment = int(now * 1000)
        known = self._suspects.get(client)
        if known is not None and known.until > moment:
            return known
        judged = self.look(client)
        if judged is None:
            return None
        kind = Suspicion.CRAWLER if judged.agent.calling is Calling.CRAWLER else Suspicion.HUMAN
        return Verdict(client, kind, round(judged.score, 3), _reasons(judged), moment, moment)

    def _verdict(self, client: str, known: Verdict | None, moment: int) -> Verdict | None:
        """A verdict that is new or begins anew, or None where there is none, or the old one goes on."""
        judged = self.look(client)
        needed = self.threshold * (_RELIEF if known is not None else 1)
        if judged is None or judged.score < needed or self._trusted(client):
            return None
        since = known.since if known is not None else moment
        until = moment + int(self._lasting * 1000)
        return Verdict(client, Suspicion.SUSPECT, round(judged.score, 3), _reasons(judged), since, until)


def _reasons(judged: Judgement) -> tuple[str, ...]:
    worth = [finding.text[:LONGEST_REASON] for finding in judged.findings if finding.part >= _WORTH]
    return tuple(worth[:MOST_REASONS])
