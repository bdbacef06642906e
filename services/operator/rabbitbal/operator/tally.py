"""What came of a replay, in numbers. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rabbitbal.operator.difference import Comparison

# Requests whose differences are shown one by one; the others are counted.
MOST_SHOWN = 50
_SHARES = (0.5, 0.95, 0.99)


def percentiles(values: list[float]) -> list[float | None]:
    """p50, p95 and p99, by the nearest rank."""
    if not values:
        return [None] * len(_SHARES)
    ranked = sorted(values)
    return [round(ranked[min(len(ranked) - 1, int(share * len(ranked)))], 1) for share in _SHARES]


@dataclass(slots=True)
class Tally:
    left_out: "Counter[str]" = field(default_factory=Counter)
    same: int = 0
    different: int = 0
    uncompared: int = 0
    """Answered now, and not by an application then."""
    kinds: "Counter[str]" = field(default_factory=Counter)
    failed: "Counter[str]" = field(default_factory=Counter)
    unknown: "Counter[str]" = field(default_factory=Counter)
    """Of those that are the same as far as is known: what is not known of their bodies."""
    recorded_ms: list[float] = field(default_factory=list)
    replayed_ms: list[float] = field(default_factory=list)
    recorded_app_ms: list[float] = field(default_factory=list)
    replayed_app_ms: list[float] = field(default_factory=list)

    def compared(self, found: Comparison) -> None:
        if found.unknown is not None:
            self.unknown[found.unknown] += 1
        if found.differences:
            self.different += 1
            self.kinds.update(found.kinds())
        else:
            self.same += 1

    @property
    def replayed(self) -> int:
        return self.same + self.different + self.uncompared + self.failed.total()

    @property
    def well(self) -> bool:
        """Everything that was sent was answered as it was recorded."""
        return not self.different and not self.failed

    def latency(self) -> list[tuple[str, list[float | None]]]:
        return [
            ("recorded, whole", percentiles(self.recorded_ms)),
            ("replayed, whole", percentiles(self.replayed_ms)),
            ("recorded, application", percentiles(self.recorded_app_ms)),
            ("replayed, application", percentiles(self.replayed_app_ms)),
        ]

    def shown(self) -> dict[str, Any]:
        return {
            "replayed": self.replayed,
            "same": self.same,
            "different": self.different,
            "different_by": dict(self.kinds),
            "failed": dict(self.failed),
            "uncompared": self.uncompared,
            "body_unknown": dict(self.unknown),
            "left_out": dict(self.left_out),
            "latency_ms": {
                name.replace(", ", "_"): dict(zip(("p50", "p95", "p99"), values, strict=True))
                for name, values in self.latency()
            },
        }

    def rows(self) -> list[list[object]]:
        return [
            ["replayed", self.replayed, ""],
            ["same", self.same, _counted(self.unknown, "body: ")],
            ["different", self.different, _counted(self.kinds)],
            ["failed", self.failed.total(), _counted(self.failed)],
            ["not comparable", self.uncompared, "no application had answered then" if self.uncompared else ""],
            ["left out", self.left_out.total(), _counted(self.left_out)],
        ]


def _counted(counts: "Counter[str]", before: str = "") -> str:
    return ", ".join(f"{before}{name} {number}" for name, number in counts.most_common())
