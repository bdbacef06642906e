"""Connections to the upstream between two requests."""

import asyncio

from rabbitbal.worker.targets.connection import Connection

# Seconds. Less than what common servers allow an idle connection (gunicorn 2 s, uvicorn, Node.js and nginx upwards of
# 5 s), so that it is us who closes it and hardly any request meets a connection that is being closed.
_KEEPALIVE = 1.5


class Kept:
    """Those that are idle, the last used first: so their number goes down with the load."""

    def __init__(self) -> None:
        self._idle: dict[Connection, asyncio.TimerHandle] = {}
        self._closed = False

    def take(self) -> Connection | None:
        """One that can be used, or None."""
        while self._idle:
            connection, timer = self._idle.popitem()
            timer.cancel()
            if not connection.stale:
                return connection
            connection.wire.close()
        return None

    def drop(self) -> None:
        """Close the one that has been idle for longest: another is about to be opened."""
        if self._idle:
            self._expire(next(iter(self._idle)))

    def give(self, connection: Connection) -> None:
        """Keep it for another request if it can have one."""
        if self._closed or not connection.reuse():
            connection.wire.close()
            return
        self._idle[connection] = asyncio.get_running_loop().call_later(_KEEPALIVE, self._expire, connection)

    def close(self) -> None:
        """For good: what is in use is closed when it is given back."""
        self._closed = True
        while self._idle:
            self.drop()

    def _expire(self, connection: Connection) -> None:
        self._idle.pop(connection).cancel()
        connection.wire.close()
