"""The live page, put together: what it watches, what it remembers, what it asks others for, and its files."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter

from rabbitbal.tap import feed, page, stories
from rabbitbal.tap.live import Live
from rabbitbal.tap.observation import Part
from rabbitbal.tap.panels import Panels, Provider


class Dashboard:
    """``state`` tells of the tap's own reading; ``providers`` are the panels that others fill (`panels.py`)."""

    def __init__(
        self,
        tap_id: str,
        remembered: int,
        providers: Mapping[str, tuple[Provider, float]],
        state: Callable[[], dict[str, Any]],
    ) -> None:
        self._stories = stories.Stories(remembered)
        live = Live(self._stories.known)
        self._feed = feed.Feed(tap_id, live, self._stories, Panels(providers), state)
        # Live asks whether an ending is known, so it sees each before the stories do.
        self.parts: list[Part] = [live, self._stories]

    def routers(self) -> list[APIRouter]:
        return [page.router(), feed.router(self._feed), stories.router(self._stories)]

    def close(self) -> None:
        """Let all viewers go."""
        self._feed.closed = True
