"""Routes: which pool a request goes to, and under which policies; a table that is read anew while requests flow."""

import json
import time
from secrets import token_hex

from integration.client import Background, Call, Load, send
from integration.deployment import Deployment
from integration.polling import eventually

TABLE = """\
version: 1
routes:
  - name: tenants
    match: { host: "*.tenants.test" }
    to: north
  - name: bots
    match: { headers: { User-Agent: { regex: "(?i)bot" } } }
    to: south
  - name: writes
    match: { path: /echo/things, method: [POST, PUT] }
    to: south
  - name: things
    match: { path: /echo/things }
    to: north
  - name: numbers
    match: { path_regex: "^/echo/[0-9]+$" }
    to: south
  - name: default
"""

CATCH_ALL = """\
version: 1
routes:
  - name: default
"""


def went(deployment: Deployment, target: str, method: str = "GET", **fields: str) -> tuple[str | None, str | None]:
    """The route and the pool of a request."""
    call = Call(target, method, tuple((name.replace("_", "-"), value) for name, value in fields.items()))
    answer = send(deployment.http, call)
    assert answer.status == 200, answer
    return answer.first("Rabbitbal-Route"), answer.first("Rabbitbal-Pool")


def test_a_request_goes_where_its_route_says(pooled: Deployment) -> None:
    """Host with a wildcard, a header by pattern, method and path, path by pattern; the first that matches; else the
    last."""
    pooled.ready(workers=1)
    pooled.route(TABLE)
    assert went(pooled, "/echo", Host="a.b.tenants.test") == ("tenants", "north")
    assert went(pooled, "/echo", Host="tenants.test") == ("default", "default")
    assert went(pooled, "/echo/things", User_Agent="SomeBot/1.0") == ("bots", "south")
    assert went(pooled, "/echo/things", "POST") == ("writes", "south")
    assert went(pooled, "/echo/things/1?a=b") == ("things", "north")
    assert went(pooled, "/echo/x/../things") == ("things", "north")
    assert went(pooled, "/echo/thingsandmore") == ("default", "default")
    assert went(pooled, "/echo/12345") == ("numbers", "south")
    assert went(pooled, "/echo/12345x") == ("default", "default")


def test_the_path_as_the_key(pooled: Deployment) -> None:
    """The topic mode of the original: words of the path make the key, and a binding with a wildcard leads a whole
    branch to a pool."""
    pooled.ready(workers=1)
    name = f"t{token_hex(3)}"
    pooled.route(
        f"version: 1\nroutes:\n  - {{name: topics, match: {{path: /echo/{name}}}, to: {{path: 3}}}}\n"
        "  - name: default\n"
    )
    pooled.operate("pools", "bind", f"echo.{name}.*", "north")
    try:
        assert went(pooled, f"/echo/{name}/reports") == ("topics", "north")
        assert went(pooled, f"/echo/{name}/any thing".replace(" ", "%20")) == ("topics", "north")
        assert send(pooled.http, Call(f"/echo/{name}")).ending == "503 unroutable"
    finally:
        pooled.operate("pools", "unbind", f"echo.{name}.*", "north")


def test_a_table_is_read_anew_by_every_edge_under_load(pooled: Deployment) -> None:
    """Two edges have the new table within seconds of its being written; no request fails meanwhile, and the tap sees
    that each has taken it."""
    pooled.ready(workers=1, edges=2)
    pooled.route(CATCH_ALL)
    with Load(pooled.http, rate=60, seconds=60, make=lambda number: Call(f"/echo/things?n={number}")) as load:
        eventually(lambda: load.sent > 60, "the load is under way")
        started = time.monotonic()
        pooled.route(TABLE)
        seen = time.monotonic() - started
        target = load.sent + 120
        eventually(lambda: load.sent >= target, "the load goes on")
        answers = load.finish()
    assert set(load.endings()) == {"200"}
    assert {answer.first("Rabbitbal-Pool") for answer in answers} == {"default", "north"}
    print(f"a new table in both edges within {seen:.2f} s")
    digest = pooled.table(pooled.containers("edge")[0])["digest"]
    eventually(
        lambda: (
            len([n for n in pooled.events(pooled.container("tap"), "routes.loaded") if n.get("digest") == digest]) >= 2
        ),
        "the tap has seen both edges take it",
    )


def test_a_broken_table_is_refused_and_the_old_one_stays(pooled: Deployment) -> None:
    """The edge says what is wrong, with line and column, in its log, on its page, and to the tap; requests go on by the
    old table. A file that is put right is taken."""
    pooled.ready(workers=1)
    pooled.route(TABLE)
    digest = pooled.table()["digest"]
    edge = pooled.container("edge")
    broken = TABLE.replace("method: [POST, PUT]", "methods: [POST, PUT]")
    pooled.edit_routes(broken)

    def complaints() -> list[str]:
        return [line for line in pooled.logs(edge) if "routes.refused" in line and "routes.yaml:10:" in line]

    eventually(complaints, "the edge complains in its log, with the line")
    assert "methods" in complaints()[-1]
    assert pooled.table()["digest"] == digest
    assert "routes.yaml:10:" in json.dumps(pooled.table())
    eventually(lambda: pooled.events(pooled.container("tap"), "routes.refused"), "the tap hears of it")
    assert went(pooled, "/echo/things") == ("things", "north")
    pooled.route(TABLE.replace("writes", "writers"))
    assert went(pooled, "/echo/things", "POST") == ("writers", "south")


def test_policies_of_a_route(pooled: Deployment) -> None:
    """A timeout and a limit of the body, of one route alone."""
    pooled.ready(workers=1)
    pooled.route("""\
version: 1
routes:
  - { name: hasty, match: { path: /work, headers: { X-Hasty: "1" } }, to: north, timeout: 500ms }
  - { name: small, match: { path: /echo/small }, to: north, body_limit: 1KiB }
  - { name: default }
""")
    hasty = send(pooled.http, Call("/work?ms=3000", fields=(("X-Hasty", "1"),)))
    assert hasty.ending == "504 worker-timeout"
    assert hasty.seconds < 2.5
    assert send(pooled.http, Call("/work?ms=1000")).status == 200
    assert send(pooled.http, Call("/echo/small", "POST", body=b"x" * 1025)).ending == "413 body-too-large"
    assert send(pooled.http, Call("/echo/small", "POST", body=b"x" * 1024)).status == 200
    assert send(pooled.http, Call("/echo", "POST", body=b"x" * 1025)).status == 200


def test_redelivery_of_a_route(pooled: Deployment) -> None:
    """`always` repeats a POST whose worker died, `never` does not repeat a GET."""
    pooled.ready(workers=1, worker_north=2)
    pooled.route("""\
version: 1
routes:
  - { name: always, match: { path: /work, method: POST }, to: north, redeliver: always }
  - { name: never, match: { path: /work }, to: north, redeliver: never }
  - { name: default }
""")
    key = token_hex(4)
    held = Background(
        pooled.http,
        Call(f"/work?ms=2500&key={key}-always", "POST", key="always"),
        Call(f"/work?ms=2500&key={key}-never", key="never"),
    )
    runners = pooled.runners(f"{key}-always", f"{key}-never")
    for victim in {runner.id: runner for runner in runners.values()}.values():
        pooled.kill(victim)
    for victim in pooled.containers("worker-north"):
        if victim.state == "exited":
            pooled.start(victim)
    answers = {answer.call.key: answer for answer in held.answers()}
    assert answers["always"].ending == "200"
    assert answers["always"].attempt in ("2", "3"), "the second victim may have had it, too"
    assert answers["never"].ending == "502 worker-lost"


def test_a_persistent_request_outlives_the_broker(pooled: Deployment) -> None:
    """A POST that waits in the queue while the broker restarts is run afterwards, once, and its client gets the answer;
    one that is not persistent is told `worker-lost`."""
    pooled.ready(workers=1)
    pooled.route("""\
version: 1
routes:
  - { name: kept, match: { path: /work, headers: { X-Kept: "1" } }, to: south, delivery: persistent }
  - { name: plain, match: { path: /work }, to: south }
  - { name: default }
""")
    key = token_hex(4)
    south = pooled.container("worker-south")
    pooled.stop(south)
    held = Background(
        pooled.http,
        Call(f"/work?key={key}-kept", "POST", (("X-Kept", "1"),), key="kept"),
        Call(f"/work?key={key}-plain", "POST", key="plain"),
    )
    eventually(lambda: pooled.queues()["pool.south"]["messages_ready"] == 2, "both wait")
    pooled.restart(pooled.container("rabbitmq"))
    pooled.start(south)
    answers = {answer.call.key: answer for answer in held.answers()}
    assert answers["plain"].ending == "502 worker-lost"
    assert answers["kept"].ending == "200", answers["kept"]
    pooled.ready(workers=1)
    assert pooled.events_of("worker-south", "ran", f"{key}-kept") == 1
