"""The labelled log, read again by the tap's own parts as if it came off the broker, and what became of each client."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.bots.scorer import Scorer
from rabbitbal.tap.bots.watcher import PERIOD, Watcher
from rabbitbal.tap.observation import Observation
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.message import Request, Response
from rabbitbal.wire.verdicts import Suspicion

DATA = Path(__file__).parents[2] / "services" / "tap" / "tests" / "data" / "bots"
# Any moment will do.
BEGAN = 1_767_225_600.0
WINDOW, THRESHOLD, LASTING = 120.0, 0.6, 300.0
BOT = "bot"


@dataclass(frozen=True)
class Outcome:
    """What was thought of one client. ``requests`` were made in all, and ``before`` it was suspected; None: never."""

    client: str
    tool: str
    label: str
    held: bool
    requests: int
    highest: float
    before: int | None
    kind: Suspicion
    reasons: tuple[str, ...]

    @property
    def suspected(self) -> bool:
        return self.before is not None

    @property
    def right(self) -> bool:
        return self.suspected == (self.label == BOT)


def observations(line: dict[str, Any], number: int, robots: bytes) -> Iterator[Observation]:
    """A request and its answer, as edges and workers publish them."""
    at = BEGAN + line["t"]
    fields = [(b"Host", b"site.test"), (b"X-Forwarded-For", line["c"].encode())]
    fields += [(name.encode(), b"*") for name in line["h"]]
    if line["a"]:
        fields.append((b"User-Agent", line["a"].encode("latin-1")))
    if line["r"]:
        fields.append((b"Referer", b"http://site.test/"))
    request = Request(line["m"], line["p"].encode("latin-1"), fields)
    asked = Envelope(Kind.REQUEST, str(number), "edge-1", sent=int(at * 1000), route="default")
    yield Observation(at, asked, b"", request=request)
    body = robots if line["p"] == "/robots.txt" else b""
    response = Response(line["s"], [(b"Content-Type", line["y"].encode())], body)
    answered = Envelope(Kind.RESPONSE, str(number), "worker-1", sent=int(at * 1000), duration=1000)
    yield Observation(at, answered, b"", response=response)


def replay(threshold: float = THRESHOLD, window: float = WINDOW, data: Path = DATA) -> list[Outcome]:
    """Every client of the log, in the order of its addresses."""
    clients = json.loads((data / "clients.json").read_text())
    robots = (data / "robots.txt").read_bytes()
    lines = [json.loads(line) for line in (data / "log.ndjson").read_text().splitlines()]
    scorer = Scorer(20_000, window, threshold, LASTING)
    watcher, access = Watcher(scorer), AccessLog(50_000, Redactor())
    made: Counter[str] = Counter()
    before: dict[str, int] = {}
    highest: dict[str, float] = {}
    reasons: dict[str, tuple[str, ...]] = {}

    def judge(now: float, seen: Iterable[str]) -> None:
        for client in seen:
            judged = scorer.look(client)
            highest[client] = max(highest.get(client, 0.0), judged.score if judged is not None else 0.0)
        for verdict in scorer.judge(now):
            before.setdefault(verdict.client, made[verdict.client])
            reasons.setdefault(verdict.client, verdict.reasons)

    due, active = BEGAN + PERIOD, set[str]()
    for number, line in enumerate(sorted(lines, key=lambda line: line["t"])):
        while BEGAN + line["t"] >= due:
            judge(due, active)
            active.clear()
            due += PERIOD
        for seen in observations(line, number, robots):
            seen.line = access.see(seen)
            watcher.see(seen)
        made[line["c"]] += 1
        active.add(line["c"])
    judge(due, active)
    found = []
    for client, about in clients.items():
        verdict = scorer.verdict(client, due)
        kind = Suspicion.SUSPECT if client in before else verdict.kind if verdict else Suspicion.HUMAN
        told = reasons.get(client, verdict.reasons if verdict else ())
        found.append(
            Outcome(
                client, about["tool"], about["label"], about["held"], made[client], highest.get(client, 0.0),
                before.get(client), kind, told,
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Measure:
    """Of clients: bots that were suspected, others that were, and bots that were not."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0


def measure(outcomes: Iterable[Outcome]) -> Measure:
    found = list(outcomes)
    return Measure(
        sum(one.suspected and one.label == BOT for one in found),
        sum(one.suspected and one.label != BOT for one in found),
        sum(not one.suspected and one.label == BOT for one in found),
    )
