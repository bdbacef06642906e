"""Figures of a load during which keys are moved between pools. Times are in seconds since the Unix epoch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from streaming.figures import percentile


@dataclass(frozen=True)
class Record:
    """One request."""

    uri: str
    key: str
    """It stands in the log of the worker that starts it."""
    due: float
    ended: float
    status: int
    """0: no answer at all."""
    reason: str
    pool: str
    app: float
    """Seconds in the application."""

    @property
    def good(self) -> bool:
        return self.status == 200 and not self.reason

    @property
    def started(self) -> float:
        """When the application began, or a moment later: the way back is counted as if it were none."""
        return self.ended - self.app


def app_seconds(timing: str) -> float:
    """Of `queue;dur=1.5, app;dur=20.1`; 0 where it does not say."""
    for part in timing.split(","):
        name, _, value = part.strip().partition(";dur=")
        if name == "app":
            try:
                return float(value) / 1000
            except ValueError:
                return 0.0
    return 0.0


@dataclass(frozen=True)
class Move:
    """What the operator's command did. ``at``: when the key began to lead to the new pool; before that, for ``gap``
    seconds, it led nowhere. ``asked``: when the command was started, in a container that takes its time."""

    key: str
    origin: str
    to: str
    at: float
    gap: float
    asked: float

    @property
    def unbound(self) -> float:
        return self.at - self.gap


@dataclass(frozen=True)
class Effect:
    """Seconds from the unbinding. ``first``: until the new pool started a request; ``last``: until the old pool started
    the last one that had been waiting there. None where there was none."""

    move: Move
    first: float | None
    last: float | None


@dataclass(frozen=True)
class Window:
    """Requests of one URI that were due in a stretch of time. ``at`` is its middle, from the beginning of the load."""

    at: float
    per_second: float
    p95: float | None
    """Seconds. None where none was due, or none was answered."""
    failed: int


def windows(records: Iterable[Record], begin: float, seconds: float, width: float) -> list[Window]:
    """Of one URI's records. Throughput counts good answers by when they ended, p95 by when the request was due."""
    records = list(records)
    found = []
    for number in range(int(seconds / width)):
        low, high = begin + number * width, begin + (number + 1) * width
        due = [record for record in records if low <= record.due < high]
        times = [record.ended - record.due for record in due if record.good]
        ended = sum(record.good and low <= record.ended < high for record in records)
        failed = sum(not record.good for record in due)
        p95 = percentile(times, 0.95) if times else None
        found.append(Window((number + 0.5) * width, ended / width, p95, failed))
    return found


def effect(move: Move, records: Iterable[Record], until: float) -> Effect:
    """``until``: the next move of the same key, or the end."""
    behind = [r for r in records if r.uri == move.key and r.good and move.unbound <= r.started < until]
    new = [record.started for record in behind if record.pool == move.to]
    old = [record.started for record in behind if record.pool == move.origin]
    return Effect(
        move, min(new) - move.unbound if new else None, max(old) - move.unbound if old else None
    )  # fmt: skip


def effects(moves: Sequence[Move], records: Sequence[Record]) -> list[Effect]:
    found = []
    for number, move in enumerate(moves):
        later = [other.unbound for other in moves[number + 1 :] if other.key == move.key]
        found.append(effect(move, records, min(later, default=float("inf"))))
    return found


@dataclass(frozen=True)
class Books:
    """Of a whole run. ``never``: answered 200, and no worker's log says that it ran."""

    sent: int
    failed: dict[str, int]
    twice: int
    never: int

    @property
    def balanced(self) -> bool:
        return bool(self.sent) and not self.failed and not self.twice and not self.never


def books(records: Sequence[Record], runs: Counter[str]) -> Books:
    failed = Counter(f"{record.status} {record.reason}".strip() for record in records if not record.good)
    twice = sum(number > 1 for number in runs.values())
    never = sum(record.good and not runs[record.key] for record in records)
    return Books(len(records), dict(failed), twice, never)


def summary(
    records: Sequence[Record], moves: Sequence[Move], kept: Books, begin: float, seconds: float, width: float
) -> dict[str, Any]:
    """What is written as JSON, and what the picture is made from. Times are from the beginning of the load."""
    uris = sorted({record.uri for record in records})
    series = {
        uri: [asdict(w) for w in windows([r for r in records if r.uri == uri], begin, seconds, width)] for uri in uris
    }
    shown = [
        {
            "key": found.move.key,
            "from": found.move.origin,
            "to": found.move.to,
            "asked": found.move.asked - begin,
            "unbound": found.move.unbound - begin,
            "gap_ms": found.move.gap * 1000,
            "first_ms": None if found.first is None else found.first * 1000,
            "last_of_old_ms": None if found.last is None else found.last * 1000,
        }
        for found in effects(moves, records)
    ]
    return {"books": asdict(kept), "moves": shown, "seconds": seconds, "width": width, "series": series}


def report(told: dict[str, Any]) -> str:
    """Markdown."""
    kept = told["books"]
    failed = ", ".join(f"{reason}: {number}" for reason, number in kept["failed"].items()) or "0"
    lines = [
        f"requests {kept['sent']}, failed {failed}, run twice {kept['twice']}, answered without a run {kept['never']}",
        "",
        "| at, s | key | from | to | bound nowhere, ms | first start in the new pool, ms | last start in the old, ms |",
        "| ---: | --- | --- | --- | ---: | ---: | ---: |",
    ]
    for move in told["moves"]:
        cells = [_number(move[name]) for name in ("gap_ms", "first_ms", "last_of_old_ms")]
        lines.append(f"| {move['unbound']:.1f} | {move['key']} | {move['from']} | {move['to']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "ms count from the moment in which the key was unbound"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
