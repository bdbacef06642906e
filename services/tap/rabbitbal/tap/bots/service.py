"""The tap's watch for bots, put together."""

import asyncio
import ipaddress
import time
from collections.abc import Callable

from fastapi import APIRouter

from rabbitbal.runtime.broker import Publisher, Server
from rabbitbal.runtime.settings import SettingsError
from rabbitbal.tap.bots import api
from rabbitbal.tap.bots.reporter import Reporter
from rabbitbal.tap.bots.scorer import Scorer
from rabbitbal.tap.bots.watcher import Watcher
from rabbitbal.tap.panels import Provider
from rabbitbal.tap.settings import Settings
from rabbitbal.wire.verdicts import REPEATED


class Bots:
    """``watcher`` is the part that reads; `run` finds suspects and tells edges of them."""

    def __init__(self, settings: Settings, tap: str) -> None:
        """Raises SettingsError."""
        self.scorer = Scorer(
            settings.bots_clients,
            settings.bots_window,
            settings.bots_threshold,
            settings.bots_verdict,
            networks(settings.bots_trusted),
        )
        server = Server(settings.broker_url, settings.broker_password_file)
        publisher = Publisher(f"{tap} publishes verdicts", server)
        # An edge must hear that a verdict goes on before it takes it for ended.
        period = min(REPEATED, settings.bots_verdict / 3)
        self._reporter = Reporter(tap, publisher, lambda: self.scorer.suspects(time.time()), period)
        self.watcher = Watcher(self.scorer, self._reporter.tell)

    def router(self) -> APIRouter:
        return api.router(self.scorer)

    def panel(self) -> tuple[Provider, float]:
        return (lambda: api.panel(self.scorer)), 2.0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watcher.run())
            group.create_task(self._reporter.run())


def networks(text: str) -> Callable[[str], bool]:
    """Whether an address lies in one of them. Raises SettingsError for what is no network."""
    try:
        found = [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise SettingsError(f"RABBITBAL_BOTS_TRUSTED: {error}") from error

    def trusted(client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in found)

    return trusted
