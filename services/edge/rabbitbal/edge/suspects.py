"""Whom the tap suspects of being a bot, as long as it says so. Without a tap that is soon nobody."""

import time
from collections import OrderedDict
from collections.abc import Callable

import structlog

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import Fields
from rabbitbal.wire.verdicts import Suspicion, client_of, decode_verdict

log = structlog.get_logger()

MOST = 20_000
# Seconds. No verdict holds for longer than this without being told again, whatever it says.
LONGEST = 86_400.0


class Suspects:
    """At most ``MOST``; the one that was told of for longest ago is forgotten. ``clock`` gives seconds since the Unix
    epoch: the tap's and the edge's must agree as those of edges and workers do."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._until: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def hear(self, payload: bytes) -> None:
        """A verdict of the tap. One that is no verdict is logged, and changes nothing."""
        try:
            verdict = decode_verdict(payload)
        except WireError as error:
            log.warning("edge.bad_message", error=str(error))
            return
        self._until.pop(verdict.client, None)
        if verdict.kind is Suspicion.SUSPECT:
            self._until[verdict.client] = min(verdict.until / 1000, self._clock() + LONGEST)
            if len(self._until) > MOST:
                self._until.popitem(last=False)

    def left(self, fields: Fields) -> float | None:
        """Seconds for which the client of a request is still a suspect; None if it is none."""
        client = client_of(fields)
        until = None if client is None else self._until.get(client)
        if client is None or until is None:
            return None
        left = until - self._clock()
        if left > 0:
            return left
        del self._until[client]
        return None
