"""The newest requests with what happened to them and when, as far as messages told: the page's own short memory."""

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query

from rabbitbal.tap.live import failed
from rabbitbal.tap.observation import Observation
from rabbitbal.wire.envelope import Envelope, Kind

# Whoever makes a request's attempts, claims and answers more than these is none of ours.
_MOST_STEPS = 24
_LONGEST = 100
_LONGEST_TARGET = 500
_TOLD = (
    "method", "host", "client", "agent", "referer", "route", "pool", "edge", "worker", "status", "reason", "attempt",
    "bytes", "request_bytes", "queue_ms", "app_ms", "total_ms", "leg", "group", "partition", "upgrade",
)  # fmt: skip
_COPIES = 32


@dataclass(slots=True)
class Story:
    """One request. Times are in milliseconds since the Unix epoch, each by the clock of whoever did it."""

    id: str
    number: int
    """Counted by this tap; a later request has a higher one."""
    began: int | None = None
    line: dict[str, Any] = field(default_factory=dict)
    """Of the access line, what the page shows; empty until it has ended."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    ended: int | None = None
    """The number of its ending."""

    def brief(self) -> dict[str, Any]:
        """A row of the page's list."""
        names = ("method", "target", "route", "pool", "worker", "status", "reason", "attempt", "total_ms", "leg")
        found = {name: value for name in names if (value := self.line.get(name)) is not None}
        return {"id": self.id, "at": self.began, "n": self.ended, **found}

    def whole(self) -> dict[str, Any]:
        return {"id": self.id, "began": self.began, "ended": self.ended is not None, "steps": self.steps, **self.line}


class Stories:
    """At most ``limit`` of them; the oldest is forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stories: OrderedDict[str, Story] = OrderedDict()
        self._newest: OrderedDict[int, Story] = OrderedDict()
        """Those that have ended, by the number of their ending."""
        self._begun = 0
        self.ended = 0
        """Requests whose endings were seen."""

    def __len__(self) -> int:
        return len(self._stories)

    def see(self, seen: Observation) -> None:
        envelope = seen.envelope
        if envelope.kind not in _STEPS:
            return
        story = self._stories.get(envelope.correlation_id)
        if story is None:
            if seen.request is None:
                # An answer of a request that was forgotten, or never seen, makes no story.
                return
            story = self._begin(envelope)
        self._step(story, seen)
        if seen.line is not None and not seen.line.get("unmatched"):
            self._end(story, seen.line)

    def known(self, name: str) -> bool:
        """Whether the ending of this request was seen."""
        story = self._stories.get(name)
        return story is not None and story.ended is not None

    def _begin(self, envelope: Envelope) -> Story:
        self._begun += 1
        name, began = envelope.correlation_id, envelope.sent
        if began is not None and envelope.kind is Kind.ENDED:
            # It came to no pool. The time that it took is all that is told of its beginning.
            began -= (envelope.duration or 0) // 1000
        story = self._stories[name] = Story(name[:_LONGEST], self._begun, began)
        if len(self._stories) > self._limit:
            _, oldest = self._stories.popitem(last=False)
            if oldest.ended is not None:
                self._newest.pop(oldest.ended, None)
        return story

    def _step(self, story: Story, seen: Observation) -> None:
        envelope = seen.envelope
        name = _STEPS[envelope.kind]
        if envelope.kind is Kind.RESPONSE and envelope.more:
            name = "head"
        step: dict[str, Any] = {
            "what": name,
            "at": envelope.sent,
            "by": envelope.app_id[:_LONGEST],
            "attempt": envelope.attempt,
        }
        if envelope.duration is not None and envelope.kind is Kind.RESPONSE:
            step["app_ms"] = round(envelope.duration / 1000, 2)
        for what in ("pool", "reason"):
            value: str | None = getattr(envelope, what)
            if value is not None:
                step[what] = str(value)[:_LONGEST]
        # What came a second time, after a broken connection, says nothing new.
        if step not in story.steps and len(story.steps) < _MOST_STEPS:
            story.steps.append(step)

    def _end(self, story: Story, line: dict[str, Any]) -> None:
        if story.ended is not None:
            return
        story.line = {name: _bounded(line[name]) for name in _TOLD if line.get(name) is not None}
        # The line's target is the one that may be shown: what must not be has been taken out of it.
        story.line["target"] = str(line.get("target") or "")[:_LONGEST_TARGET]
        self.ended += 1
        story.ended = self.ended
        self._newest[self.ended] = story

    def since(self, number: int, most: int) -> tuple[list[dict[str, Any]], int]:
        """Rows of requests that ended after the ``number``-th, newest first and ``most`` at most, and how many did."""
        found: list[dict[str, Any]] = []
        for story in islice(reversed(self._newest.values()), most):
            if story.ended is None or story.ended <= number:
                break
            found.append(story.brief())
        return found, self.ended - number

    def newest(self) -> Iterator[Story]:
        """Those that have ended, newest first."""
        return reversed(self._newest.values())

    def find(self, start: str) -> list[Story]:
        """Those whose id begins so; two at most, as that is enough to know that it names none."""
        exact = self._stories.get(start)
        if exact is not None:
            return [exact]
        return list(islice((story for name, story in self._stories.items() if name.startswith(start)), 2))

    def copies(self, group: str, but: Story) -> list[dict[str, Any]]:
        """The other copies of the same client's request that have ended."""
        found = (s.brief() for s in self.newest() if s.line.get("group") == group and s is not but)
        return list(islice(found, _COPIES))


_STEPS = {
    Kind.REQUEST: "published",
    Kind.CLAIM: "claim",
    Kind.REDELIVERED: "redelivered",
    Kind.RESPONSE: "response",
    Kind.ENDED: "ended",
}


def _bounded(value: Any) -> Any:
    return value[:_LONGEST] if isinstance(value, str) else value


# --- HTTP


_STATUS = r"[1-5]xx|[1-5][0-9]{2}|failed"
_SHORT = Query(max_length=_LONGEST)


def router(stories: Stories) -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/requests")
    async def recent(
        status: Annotated[str | None, Query(pattern=f"^({_STATUS})$")] = None,
        route: Annotated[str | None, _SHORT] = None,
        reason: Annotated[str | None, _SHORT] = None,
        client: Annotated[str | None, _SHORT] = None,
        q: Annotated[str | None, _SHORT] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> dict[str, Any]:
        """The newest requests that fit all that is asked for. `q` is a part of the target, the id, the worker, …"""
        wanted = {"route": route, "reason": reason, "client": client}
        fitting = (s for s in stories.newest() if _fits(s, status, wanted, (q or "").lower()))
        found = [story.brief() for story in islice(fitting, limit)]
        return {"requests": found, "remembered": len(stories), "limit": limit}

    @routes.get("/api/requests/{name}")
    async def one(name: Annotated[str, Path(pattern=r"^[\w.:~-]{1,100}$")]) -> dict[str, Any]:
        """A request's story. The start of its id is enough where no other begins so."""
        found = stories.find(name)
        if not found:
            raise HTTPException(404, f"no request {name} among the newest {len(stories)}")
        if len(found) > 1:
            raise HTTPException(409, f"more than one request begins with {name}; give more of its id")
        story = found[0]
        group = story.line.get("group")
        return story.whole() | {"copies": stories.copies(group, story) if group else []}

    return routes


def _fits(story: Story, status: str | None, wanted: dict[str, str | None], text: str) -> bool:
    line = story.line
    if status is not None:
        code = line.get("status")
        if status == "failed":
            if not failed(code, line.get("reason")):
                return False
        elif not re.fullmatch(status.replace("x", "."), str(code)):
            return False
    if any(value is not None and line.get(name) != value for name, value in wanted.items()):
        return False
    return not text or any(
        text in str(value).lower()
        for value in (
            story.id,
            *(line.get(n) for n in ("target", "method", "worker", "route", "pool", "client", "reason", "status")),
        )
        if value is not None
    )
