"""The tap's own lines: accesses, comparisons, and what others want to have said."""

import time

import structlog

from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.comparison import Comparison
from rabbitbal.tap.notices import notice
from rabbitbal.tap.observation import Observation
from rabbitbal.tap.sinks import Sinks
from rabbitbal.wire.envelope import Kind
from rabbitbal.wire.errors import WireError

log = structlog.get_logger()


class Journal:
    """The first of the tap's parts: it finds the access line that a message completes, and puts it in ``seen.line``."""

    def __init__(self, access: AccessLog, comparison: Comparison, sinks: Sinks) -> None:
        self._access = access
        self._comparison = comparison
        self._sinks = sinks

    def see(self, seen: Observation) -> None:
        if seen.envelope.kind is Kind.NOTICE:
            self._notice(seen)
            return
        seen.line = line = self._access.see(seen)
        if line is None:
            return
        self._sinks.write(line, _ended(seen))
        for compared in self._comparison.see(line, time.monotonic()):
            # It is read behind the accesses that it compares.
            self._sinks.flush()
            log.info("shadow.compared", **compared)

    def flush(self) -> None:
        """Write what waits. Before a batch is acknowledged: a line that was not written is read again."""
        self._sinks.flush()

    def _notice(self, seen: Observation) -> None:
        try:
            event, fields = notice(seen.payload)
        except WireError as error:
            log.warning("tap.bad_message", error=str(error))
            return
        self._sinks.flush()
        # The broker has checked the user, where there is one. The sender's name is what it calls itself.
        log.info(event, **fields, sender=seen.envelope.app_id[:100], user=seen.user)


def _ended(seen: Observation) -> float:
    """When the request ended, by the clock of whoever ended it, as far as that can be: a tap that lags does not change
    the time of a request."""
    sent = seen.envelope.sent
    return min(seen.at, sent / 1000) if sent else seen.at
