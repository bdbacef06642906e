"""A visitor of the demo application: mostly quick pages, some slow ones, a form now and then.

An answer that Rabbitbal made itself (its `Rabbitbal-Error` field says why) is a failure, listed under its reason.
"""

import json
import random
from typing import Any
from uuid import uuid4

from locust import FastHttpUser, between, task


class Visitor(FastHttpUser):
    """One person with one persistent connection, who thinks for 10 to 100 ms between pages."""

    wait_time = between(0.01, 0.1)

    @task(10)
    def home(self) -> None:
        self._get("/")

    @task(10)
    def whoami(self) -> None:
        self._get("/whoami")

    @task(6)
    def quick_work(self) -> None:
        self._get(f"/work?ms={random.randint(5, 20)}", "/work (quick)")

    @task(2)
    def slow_work(self) -> None:
        self._get(f"/work?ms={random.randint(80, 150)}", "/work (slow)")

    @task(3)
    def asset(self) -> None:
        size = random.choice((512, 4096, 60_000))
        self._get(f"/bytes/{size}", "/bytes", size)

    @task(2)
    def form(self) -> None:
        """A POST that may be repeated, as it carries a key; the body must come back as it went."""
        token = uuid4().hex
        headers = {"Idempotency-Key": token, "Content-Type": "application/x-www-form-urlencoded"}
        with self.client.post(
            "/echo", data=f"token={token}", headers=headers, name="/echo (form)", catch_response=True
        ) as response:
            if not _honest(response):
                return
            body = json.loads(response.text or "null")
            if not isinstance(body, dict) or body.get("body") != f"token={token}":
                response.failure("the echoed body is not the one sent")

    def _get(self, path: str, name: str | None = None, size: int | None = None) -> None:
        with self.client.get(path, name=name or path, catch_response=True) as response:
            if _honest(response) and size is not None and len(response.content or b"") != size:
                response.failure(f"{len(response.content or b'')} bytes instead of {size}")


def _honest(response: Any) -> bool:
    reason = (response.headers or {}).get("Rabbitbal-Error")
    if reason:
        response.failure(f"{response.status_code} {reason}")
    elif response.status_code != 200:
        response.failure(f"status {response.status_code}")
    return not reason and response.status_code == 200
