"""A request goes client, nginx, edge, broker, worker, application and back, and nothing of it is lost or made up."""

import json
from collections import Counter
from typing import Any

import pytest

from integration.client import Address, Answer, Call, Fields, get, raw, send, volley
from integration.deployment import Deployment


@pytest.fixture
def http(shared: Deployment) -> Address:
    shared.ready(workers=8)
    return shared.http


@pytest.fixture
def edge(shared: Deployment) -> Address:
    """The edge itself, without nginx before it."""
    shared.ready(workers=8)
    return shared.container("edge").addresses["front"], 8000


def seen(answer: Answer) -> dict[str, Any]:
    """The request as the application saw it."""
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def given(answer: Answer, name: str) -> list[str]:
    return [value for key, value in seen(answer)["headers"] if key == name]


def test_eight_workers_share_a_thousand_requests(http: Address) -> None:
    """Every request is answered, and no worker is left out or has more than three times its share."""
    answers = volley(http, [Call(f"/whoami?n={n}") for n in range(1000)], at_once=32)
    assert Counter(answer.ending for answer in answers) == {"200": 1000}
    shares = Counter(answer.worker for answer in answers)
    assert len(shares) == 8
    assert max(shares.values()) < 3 * 1000 / 8
    assert all(answer.body.decode().strip() == answer.worker for answer in answers)


def test_a_response_says_who_made_it(http: Address) -> None:
    """With RABBITBAL_EXPOSE_WORKER=1: the worker, the attempt, and where the time went."""
    answer = get(http, "/work?ms=50")
    assert answer.worker is not None
    assert answer.attempt == "1"
    timing = dict(part.strip().split(";dur=") for part in (answer.first("Server-Timing") or "").split(","))
    # An event loop's timer may be a millisecond early: it counts from the beginning of the loop's turn.
    assert 48 <= float(timing["app"]) < 1000
    assert 0 <= float(timing["queue"]) < 1000


def test_repeated_and_odd_fields_of_a_response_survive(http: Address) -> None:
    """Two Set-Cookie stay two, repeats keep their order, and no field of the application's steers nginx."""
    answer = get(http, "/probe/special")
    assert answer.status == 200
    assert answer.body == b"hello"
    assert answer.all("Set-Cookie") == ["a=1; Path=/", "b=2; Expires=Thu, 01 Jan 2032 00:00:00 GMT"]
    assert answer.all("X-Repeated") == ["one", "two"]
    assert answer.all("X-Empty") == [""]
    assert answer.all("X-Bytes") == ["caf\xc3\xa9"]
    assert answer.all("X-Accel-Redirect") == ["/whoami"]
    assert answer.all("Server") == ["probe"]
    assert answer.all("Via") == ["1.1 rabbitbal"]
    assert len(answer.all("Date")) == 1


@pytest.mark.parametrize("name", ["X-Hop", "Keep-Alive", "Proxy-Authenticate"])
def test_hop_by_hop_fields_of_a_response_end_here(http: Address, name: str) -> None:
    """Those that are known, and those that the application's Connection names."""
    assert get(http, "/probe/special").all(name) == []


def test_an_application_cannot_speak_for_the_proxy(http: Address) -> None:
    """Rabbitbal-* fields of a response are ours."""
    answer = get(http, "/probe/special")
    assert answer.reason is None
    assert len(answer.all("Rabbitbal-Worker")) == 1
    assert answer.worker != "forged"


@pytest.mark.parametrize("at", ["http", "edge"])
@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("HEAD", "/bytes/5000", 200), ("GET", "/probe/204", 204), ("GET", "/probe/304", 304), ("HEAD", "/probe/304", 304)],
)
def test_a_response_without_a_body_has_none(
    at: str, method: str, target: str, status: int, request: pytest.FixtureRequest
) -> None:
    """HEAD, 204 and 304: not a byte after the head."""
    message = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, end, body = raw(request.getfixturevalue(at), message.encode()).partition(b"\r\n\r\n")
    assert end
    assert body == b""
    lines = head.decode("latin-1").lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {status}")
    lengths = [line for line in lines if line.startswith("content-length:")]
    # RFC 9110 §8.6: what HEAD declares is the length that GET would have had; a 204 declares none.
    assert lengths == (["content-length: 5000"] if status == 200 else [])
    assert not any(line.startswith("transfer-encoding:") for line in lines)
    assert ("x-kept: yes" in lines) == (status == 204)
    assert ('etag: "v1"' in lines) == (status == 304)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"])
def test_any_method_passes(http: Address, method: str) -> None:
    assert seen(send(http, Call("/echo", method)))["method"] == method


@pytest.mark.parametrize(
    "target",
    [
        "/echo/a%2Fb//c/../d?x=%20&y",
        "/echo/%e4%FF;p=1/./x/%2e%2E/",
        "/echo??a=b?",
        "/echo?q=a+b&q=%00&&=",
        "/echo/'(a)!*|^`{}\"",
    ],
)
def test_the_target_arrives_as_it_was_sent(http: Address, target: str) -> None:
    """Path and query, byte for byte."""
    assert seen(get(http, target))["target"] == target


def test_an_empty_query_reaches_the_worker(shared: Deployment, http: Address) -> None:
    """ASGI cannot show it to the application, but the message in the broker has it."""
    assert get(http, "/echo/key=empty-query?").status == 200
    assert shared.ended("empty-query")["target"] == "/echo/key=empty-query?"


@pytest.mark.parametrize("host", ["example.com", "example.com:8080", "EXAMPLE.com", "[::1]:80"])
def test_the_host_is_kept(http: Address, host: str) -> None:
    """Also its port and its case."""
    answer = send(http, Call("/echo", fields=(("Host", host),)))
    assert given(answer, "host") == [host]
    assert given(answer, "x-forwarded-host") == [host]


def test_repeated_fields_of_a_request_survive(http: Address) -> None:
    """In their order, with values of any bytes, and names that nginx would not pass by itself."""
    fields: Fields = [("X-A", "1"), ("X-B", "2"), ("X-A", "3"), ("Under_Score", "4"), ("X.Dot", "5"), ("X-C", "\xe9,;")]
    answer = send(http, Call("/echo", fields=tuple(fields)))
    sent = [(name.lower(), value) for name, value in fields]
    shown = [(name, value) for name, value in seen(answer)["headers"] if name in dict(sent)]
    assert shown == sent


def test_a_binary_body_comes_back_as_it_went(http: Address) -> None:
    """Every byte value, and more than a packet of them."""
    body = bytes(range(256)) * 1000
    answer = send(http, Call("/probe/mirror", "POST", body=body))
    assert answer.status == 200
    assert answer.body == body


def test_a_chunked_body_arrives_whole(http: Address, edge: Address) -> None:
    """Through nginx and directly; the application is told its length."""
    chunked = Call(
        "/echo", "POST", (("Transfer-Encoding", "chunked"),), body=b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"
    )
    for address in (http, edge):
        answer = send(address, chunked)
        assert seen(answer)["body"] == "hello, world"
        assert given(answer, "content-length") == ["12"]
        assert given(answer, "transfer-encoding") == []


def test_megabytes_pass_both_ways(http: Address) -> None:
    body = bytes(range(256)) * 4096 * 4
    answer = send(http, Call("/probe/mirror", "PUT", body=body))
    assert answer.status == 200
    assert answer.body == body


def test_expect_is_answered(http: Address, edge: Address) -> None:
    """A client that asks for 100 Continue gets its response, and the application sees nothing of it."""
    for address in (http, edge):
        answer = send(address, Call("/echo", "POST", (("Expect", "100-continue"),), body=b"hello"))
        assert seen(answer)["body"] == "hello"
        assert given(answer, "expect") == []


@pytest.mark.parametrize("at", ["http", "edge"])
@pytest.mark.parametrize(
    "field",
    [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic Zm9vOmJhcg=="),
        ("TE", "trailers"),
        ("Trailer", "X-T"),
        ("X-Named", "for the next hop only"),
    ],
)
def test_hop_by_hop_fields_of_a_request_end_here(
    at: str, field: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    """Those that are known, and those that the client's Connection names (RFC 9110 §7.6.1)."""
    answer = send(request.getfixturevalue(at), Call("/echo", fields=(("Connection", "keep-alive, X-Named, TE"), field)))
    assert given(answer, field[0].lower()) == []
    assert given(answer, "connection") == []


def test_the_way_is_told_truly(http: Address) -> None:
    """X-Forwarded-* and Forwarded come from the connection; the proxy signs in Via."""
    answer = send(http, Call("/echo", fields=(("Host", "example.com"), ("Via", "1.0 before"))))
    (client,) = given(answer, "x-forwarded-for")
    assert client.count(".") == 3
    assert given(answer, "x-forwarded-proto") == ["http"]
    assert given(answer, "x-forwarded-host") == ["example.com"]
    assert given(answer, "forwarded") == [f'for={client};host="example.com";proto=http']
    assert given(answer, "via") == ["1.0 before, 1.1 rabbitbal"]


@pytest.mark.parametrize(
    "field",
    [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Proto", "forged"),
        ("X-Forwarded-Host", "forged.example"),
        ("X-Forwarded-Port", "666"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6;proto=forged"),
        ("Rabbitbal-Worker", "forged"),
        ("Rabbitbal-Attempt", "666"),
        ("Rabbitbal-Anything", "forged"),
    ],
)
def test_what_a_client_forges_is_dropped(http: Address, field: tuple[str, str]) -> None:
    answer = send(http, Call("/echo", fields=(field,)))
    assert field[1] not in given(answer, field[0].lower())
    assert "6.6.6.6" not in json.dumps(seen(answer)["headers"])


@pytest.mark.parametrize("target", ["/_rabbitbal/", "/_rabbitbal/stats", "/_rabbitbal", "//_rabbitbal/stats"])
def test_the_edges_own_pages_are_not_for_the_outside(http: Address, target: str) -> None:
    answer = get(http, target)
    assert answer.status == 404
    assert b'"pending"' not in answer.body


def test_the_edges_own_pages_are_there_within(edge: Address) -> None:
    """Health, readiness, settings without secrets."""
    assert get(edge, "/_rabbitbal/live").status == 200
    assert json.loads(get(edge, "/_rabbitbal/ready").body)["ready"] is True
    settings = get(edge, "/_rabbitbal/settings")
    assert json.loads(settings.body)["RABBITBAL_TIMEOUT"] == 60
    assert b"/run/secrets" not in settings.body
    assert get(edge, "/_rabbitbal/stats").status == 200


def test_a_connection_is_kept_for_many_requests(http: Address) -> None:
    """Also behind answers without a body, and behind an error of the application."""
    targets = ["/probe/204", "/probe/304", "/probe/raises", "/bytes/70000", "/status/404"] * 10
    parts = [f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n" for target in targets]
    parts.append("GET /whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = raw(http, "".join(parts).encode())
    assert answer.count(b"HTTP/1.1 ") == len(parts)
    assert answer.count(b"HTTP/1.1 500 ") == 10


def test_the_access_log_tells_of_every_request_once(shared: Deployment, http: Address) -> None:
    """One JSON line, with what a log of requests needs."""
    answer = send(http, Call("/work?ms=20&key=logged", "POST", (("Host", "h.example"), ("User-Agent", "t")), b"12345"))
    line = shared.ended("logged")
    expected = {
        "status": 200,
        "reason": None,
        "method": "POST",
        "target": "/work?ms=20&key=logged",
        "host": "h.example",
        "agent": "t",
        "worker": answer.worker,
        "pool": "default",
        "attempt": 1,
        "request_bytes": 5,
        "bytes": len(answer.body),
    }
    assert {name: line.get(name) for name in expected} == expected
    assert line["app_ms"] >= 20
