"""What other parts of the tap tell the page, each at its own pace: a panel of the page for each that there is."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any

import structlog

log = structlog.get_logger()

Provider = Callable[[], Any | Awaitable[Any]]
"""Gives what JSON can hold. It does not block; what takes its time is awaited."""
# Seconds. A ledger that is busy may take longer than the page is willing to wait.
_PATIENCE = 5.0


@dataclass(slots=True)
class _Panel:
    provide: Provider
    period: float
    value: Any = None
    due: float = 0.0
    failed: bool = False
    asking: "asyncio.Task[None] | None" = field(default=None, repr=False)


class Panels:
    """The newest values of all providers. They are asked only while somebody looks, and nobody waits for them."""

    def __init__(self, providers: Mapping[str, tuple[Provider, float]]) -> None:
        """``providers``: by the panel's name, and with the seconds after which its value is old."""
        self._panels = {name: _Panel(provide, period) for name, (provide, period) in providers.items()}

    def values(self) -> dict[str, Any]:
        """What was told last. Whatever is old is asked for again, for the next time."""
        now = time.monotonic()
        for name, panel in self._panels.items():
            if panel.asking is None and now >= panel.due:
                panel.due = now + panel.period
                panel.asking = asyncio.create_task(self._ask(name, panel))
        return {name: panel.value for name, panel in self._panels.items() if panel.value is not None}

    async def _ask(self, name: str, panel: _Panel) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                told = panel.provide()
                panel.value = await told if isawaitable(told) else told
            panel.failed = False
        except Exception as error:
            panel.value = {"error": "not available now"}
            if not panel.failed:
                # Once, not with every look.
                panel.failed = True
                log.warning("tap.panel_failed", panel=name, error=f"{type(error).__name__}: {error}"[:200])
        finally:
            panel.asking = None
