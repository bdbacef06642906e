"""Bots: who scans is found out and refused where a route says so, and nobody else; until the verdict ends."""

import json
from secrets import randbelow
from typing import Any

from integration.client import get
from integration.deployment import Deployment
from integration.polling import eventually

TABLE = """\
version: 1
routes:
  - name: strict
    match: { path: /echo/strict }
    to: default
    bots: refuse
  - name: default
"""
PROBES = ("/.env", "/wp-login.php", "/.git/config", "/phpmyadmin/", "/backup.sql", "/echo?file=../../etc/passwd")
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html",
    "Accept-Language": "en",
    "Accept-Encoding": "gzip",
}
SCRIPT = """\
import http.client, json, sys
address, client, calls, fields = json.loads(sys.argv[1])
told = []
for method, target in calls:
    connection = http.client.HTTPConnection(address, 8000, timeout=20)
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in {**fields, "X-Forwarded-For": client, "Content-Length": "0"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    told.append([answer.status, answer.getheader("Rabbitbal-Error"), answer.getheader("Retry-After")])
    connection.close()
print(json.dumps(told))
"""
Told = tuple[int, str | None, str | None]


def ask(deployment: Deployment, client: str, *targets: str, method: str = "GET", **fields: str) -> list[Told]:
    """Requests of a client with this address, as a proxy in front of the edge passes them on: status, reason,
    Retry-After."""
    edge = deployment.container("edge")
    calls = [(method, target) for target in targets]
    said = json.dumps([edge.addresses["front"], client, calls, {k.replace("_", "-"): v for k, v in fields.items()}])
    told: list[list[Any]] = json.loads(deployment.exec(edge, "python", "-c", SCRIPT, said))
    return [(status, reason, after) for status, reason, after in told]


def known(deployment: Deployment, client: str) -> dict[str, Any]:
    answer = get(deployment.dashboard, f"/api/bots/{client}")
    return dict(json.loads(answer.body)) if answer.status == 200 else {}


def suspected(deployment: Deployment, client: str) -> dict[str, Any]:
    def found() -> dict[str, Any]:
        told = known(deployment, client)
        return told if told.get("kind") == "suspect" else {}

    return eventually(found, f"{client} is suspected")


def test_a_scanner_is_found_out_and_refused_where_the_route_says_so(shared: Deployment) -> None:
    """With reasons at the tap, 429 on the route that refuses, 200 on the other; a browser beside it is not touched; and
    when the verdict ends the client is served again."""
    shared.ready(workers=2)
    shared.route(TABLE)
    scanner, person = (f"2001:db8::{randbelow(1 << 16):x}:{last}" for last in (1, 2))
    assert [status for status, _, _ in ask(shared, scanner, *PROBES)] == [404] * 5 + [200]
    for _ in range(5):
        assert ask(shared, person, "/", "/echo/strict", **BROWSER) == [(200, None, None)] * 2

    found = suspected(shared, scanner)
    assert found["score"] > 0.6
    assert "5 requests for what scanners look for and is not here, like /backup.sql" in found["reasons"]
    listed = json.loads(get(shared.dashboard, "/api/bots").body)
    assert scanner in [one["client"] for one in listed["suspects"]]
    (line,) = [line for line in shared.events(shared.container("tap"), "tap.suspect") if line["client"] == scanner]
    assert line["reasons"]

    eventually(lambda: ask(shared, scanner, "/echo/strict")[0][:2] == (429, "suspected-bot"), "the edge refuses it")
    status, reason, after = ask(shared, scanner, "/echo/strict", method="POST")[0]
    assert (status, reason) == (429, "suspected-bot")
    assert 1 <= int(after or 0) <= 10
    assert ask(shared, scanner, "/echo", "/whoami") == [(200, None, None)] * 2
    assert ask(shared, person, "/", "/echo/strict", **BROWSER) == [(200, None, None)] * 2
    assert known(shared, person)["kind"] == "human"

    # While it asks for nothing, nothing new speaks against it.
    eventually(lambda: known(shared, scanner)["kind"] == "human", "the verdict ends", 60)
    assert ask(shared, scanner, "/echo/strict") == [(200, None, None)]


def test_a_tap_that_is_gone_refuses_nobody(shared: Deployment) -> None:
    """What it said last ends by itself."""
    shared.ready(workers=2)
    shared.route(TABLE)
    scanner = f"2001:db8::{randbelow(1 << 16):x}:3"
    ask(shared, scanner, *PROBES)
    suspected(shared, scanner)
    eventually(lambda: ask(shared, scanner, "/echo/strict")[0][0] == 429, "the edge refuses it")
    shared.stop(shared.container("tap"))
    eventually(lambda: ask(shared, scanner, "/echo/strict") == [(200, None, None)], "the edge serves it again", 60)
    shared.ready(workers=2)
