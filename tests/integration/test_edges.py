"""Edges, too, are scaled without configuration: nginx finds them, and misses none that dies."""

from secrets import token_hex

from integration.client import Call, Load, send
from integration.deployment import Deployment
from integration.polling import eventually


def edges_of(deployment: Deployment, name: str) -> set[str]:
    """The edges that carried requests of this name, by the tap's log; their containers' short ids."""
    return {line["edge"].split("-")[0] for line in deployment.access(name)}


def test_three_edges_share_the_traffic_and_one_may_die(shared: Deployment) -> None:
    """`--scale edge=3`: all three get traffic without a reload of nginx. One is killed under load: every GET still
    gets its 200. Back to one edge: none fails either."""
    shared.ready(workers=4)
    nginx = shared.container("nginx")
    processes = shared.pids(nginx)
    name, phase = token_hex(3), "a"

    def make(number: int) -> Call:
        return Call(f"/work?ms=100&key={name}{phase}&n={number}")

    with Load(shared.http, rate=80, seconds=90, make=make) as load:
        eventually(lambda: load.sent > 40, "the load is under way")
        shared.scale(edge=3)
        ids = {edge.id[:12] for edge in shared.containers("edge")}
        eventually(lambda: edges_of(shared, name) == ids, "all three edges carry requests", 40)
        victim = shared.containers("edge")[-1]
        shared.kill(victim)
        target = load.sent + 240
        eventually(lambda: load.sent >= target, "the load goes on for three seconds")
        phase = "b"
        target = load.sent + 160
        eventually(lambda: load.sent >= target, "the load goes on for two seconds more")
        eventually(lambda: edges_of(shared, f"{name}b") == ids - {victim.id[:12]}, "two edges carry what comes now")
        shared.scale(edge=1)
        eventually(lambda: len(shared.containers("edge")) == 1, "one edge is left", 60)
        target = load.sent + 80
        eventually(lambda: load.sent >= target, "the load goes on for a second more")
        answers = load.finish()
    print(f"three edges, one killed, back to one: {load.endings()}, slowest {max(a.seconds for a in answers):.2f} s")
    assert set(load.endings()) == {"200"}
    assert len(answers) == load.sent
    assert shared.pids(nginx) == processes
    assert shared.look(nginx).started_at == nginx.started_at


def test_without_any_edge_the_client_hears_of_it_at_once(shared: Deployment) -> None:
    """503 `edge-down` with Retry-After, from nginx, for every method; with an edge again all is well, and nginx was not
    touched. Nothing of what was refused has run."""
    shared.ready(workers=4)
    edge, nginx, key = shared.container("edge"), shared.container("nginx"), token_hex(4)
    shared.kill(edge)
    for method in ("GET", "POST"):
        answer = send(shared.http, Call(f"/work?key={key}", method))
        assert answer.ending == "503 edge-down"
        assert answer.seconds < 10
        assert int(answer.first("Retry-After") or "") >= 1
        assert answer.body.decode().startswith("rabbitbal: edge-down: ")
    shared.start(edge)
    shared.ready(workers=4)
    assert send(shared.http, Call(f"/work?key={key}-after")).status == 200
    assert {name: n for name, n in shared.runs().items() if key in name} == {f"{key}-after": 1}
    assert shared.look(nginx).started_at == nginx.started_at
