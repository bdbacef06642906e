"""Two URIs at a steady rate, while somebody moves capacity between them.

Locust's users wait for their answers. To be as open as they can be there are many of them, each with a seeded schedule
of its own, and what one is asked for late counts from when it was due.
"""

import random
import time
from itertools import count
from typing import Any, ClassVar

from gevent import sleep
from locust import FastHttpUser, constant, task

from trial.shifts import Record, app_seconds


class Steady(FastHttpUser):
    """``period``: mean seconds between the requests of one user. Every second request is a POST, which may not be
    repeated."""

    abstract = True
    wait_time = constant(0)
    network_timeout = 90.0
    connection_timeout = 90.0
    uri: ClassVar[str]
    period: ClassVar[float] = 4.0
    ms: ClassVar[int] = 100
    run_name: ClassVar[str] = "run"
    seed: ClassVar[int] = 1
    until: ClassVar[float] = 0.0
    """When the last request may be due, in seconds since the Unix epoch."""
    records: ClassVar[list[Record]]
    numbers: ClassVar["count[int]"]
    users: ClassVar["count[int]"]

    def on_start(self) -> None:
        self._rng = random.Random(f"{self.seed} {self.uri} {next(self.users)}")
        self._due = time.time() + self._rng.expovariate(1 / self.period)

    @task
    def ask(self) -> None:
        late = self._due - time.time()
        if late > 0:
            sleep(late)
        if self._due > self.until:
            sleep(1)
            return
        due, number = self._due, next(self.numbers)
        self._due += self._rng.expovariate(1 / self.period)
        method = "POST" if number % 2 else "GET"
        key = f"{self.run_name}-{self.uri}-{number}"
        target = f"/{self.uri}/work?ms={self.ms}&key={key}"
        with self.client.request(method, target, name=f"/{self.uri}", catch_response=True) as response:
            record = self._record(response, key, due)
            self.records.append(record)
            if not record.good:
                response.failure(f"{record.status} {record.reason}")

    def _record(self, response: Any, key: str, due: float) -> Record:
        fields = response.headers or {}
        reason = fields.get("Rabbitbal-Error") or ""
        if not response.status_code:
            reason = f"no answer: {type(response.error).__name__}"
        took = app_seconds(fields.get("Server-Timing") or "")
        pool = fields.get("Rabbitbal-Pool") or ""
        return Record(self.uri, key, due, time.time(), int(response.status_code or 0), reason, pool, took)


def steady(uri: str, **settings: Any) -> type[Steady]:
    """A class of users for one URI, as locust wants it."""
    own = {"records": [], "numbers": count(), "users": count()}
    return type(f"Steady_{uri}", (Steady,), {"uri": uri, "abstract": False, **own, **settings})
