"""What a worker runs: ASGI in all other tests; here WSGI, an HTTP upstream, and an application not written for this."""

import json
from collections import Counter

import pytest

from integration.client import Call, get, send, volley
from integration.deployment import HERE, ROOT, Deployment


def test_a_wsgi_application_is_found_out_and_runs_in_threads(small: Deployment) -> None:
    """RABBITBAL_APP names a WSGI callable and nothing says so. Two slots run two slow requests at a time."""
    small.ready(workers=3)
    small.change(RABBITBAL_APP="plain:app", RABBITBAL_CONCURRENCY="2")
    small.ready(workers=1)
    call = Call(
        "/a%20b/%C3%A9?x=%20&y", "PUT", (("Host", "h.example"), ("X-Twice", "1"), ("X-Twice", "2")), body=b"\x00\xff"
    )
    answer = send(small.http, call)
    assert answer.status == 201
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]
    seen = json.loads(answer.body)
    assert seen.pop("REMOTE_ADDR").count(".") == 3
    assert seen == {
        "REQUEST_METHOD": "PUT",
        "PATH_INFO": "/a b/\xc3\xa9",
        "QUERY_STRING": "x=%20&y",
        "CONTENT_TYPE": None,
        "HTTP_HOST": "h.example",
        "HTTP_X_TWICE": "1,2",
        "body": "\x00\xff",
    }
    slow = volley(small.http, [Call("/slow") for _ in range(2)], at_once=2)
    assert {answer.status for answer in slow} == {201}
    assert max(answer.seconds for answer in slow) < 0.95


def test_a_worker_forwards_to_an_http_upstream(small: Deployment) -> None:
    """RABBITBAL_UPSTREAM instead of an application: a server that knows nothing of brokers."""
    small.ready(workers=3)
    small.change(RABBITBAL_APP="", RABBITBAL_UPSTREAM="http://upstream:9000", RABBITBAL_CONCURRENCY="2")
    (upstream,) = small.containers("upstream")
    source = (HERE / "apps" / "probe.py").read_bytes()
    answer = get(small.http, "/probe.py?x=%20")
    assert answer.status == 200
    assert answer.body == source
    assert (answer.first("Server") or "").startswith("SimpleHTTP/")
    head = send(small.http, Call("/probe.py", "HEAD"))
    assert (head.status, head.first("Content-Length"), head.body) == (200, str(len(source)), b"")
    modified = answer.first("Last-Modified") or ""
    assert send(small.http, Call("/probe.py", fields=(("If-Modified-Since", modified),))).status == 304
    assert get(small.http, "/nowhere").status == 404
    assert get(small.http, "/nowhere").reason is None
    assert send(small.http, Call("/", "POST", body=b"x" * 10_000)).status == 501
    answers = volley(small.http, [Call("/plain.py") for _ in range(60)], at_once=12)
    assert Counter(answer.ending for answer in answers) == {"200": 60}
    assert len({answer.worker for answer in answers}) == 3
    assert any("GET /probe.py?x=%20 HTTP/1.1" in line for line in small.logs(upstream))


def test_an_upstream_that_dies_is_a_bad_response(small: Deployment) -> None:
    """502 `bad-response` at once, and no ending of a worker: it is not the worker that was lost."""
    small.ready(workers=3)
    small.change(RABBITBAL_APP="", RABBITBAL_UPSTREAM="http://upstream:9000", RABBITBAL_CONCURRENCY="2")
    (upstream,) = small.containers("upstream")
    small.kill(upstream)
    answer = get(small.http, "/probe.py")
    assert answer.ending == "502 bad-response"
    assert answer.seconds < 10
    small.start(upstream)
    small.ready(workers=3)
    assert get(small.http, "/probe.py").status == 200


@pytest.mark.timeout(400)
def test_httpbin_from_pypi_is_served_as_it_is(small: Deployment) -> None:
    """A Flask application that was not written for this, from examples/httpbin: its pages through nginx."""
    if not (ROOT / "examples" / "httpbin" / "compose.yml").exists():
        pytest.skip("there is no examples/httpbin")
    small.ready(workers=3)
    image = small.build_example("examples/httpbin/compose.yml")
    small.change(RABBITBAL_WORKER_IMAGE=image, RABBITBAL_APP="httpbin:app", RABBITBAL_CONCURRENCY="4")
    http = small.http
    shown = json.loads(get(http, "/get?a=1&a=2&b=%20").body)
    assert shown["args"] == {"a": ["1", "2"], "b": " "}
    posted = json.loads(send(http, Call("/post", "POST", (("Content-Type", "application/json"),), b'{"x": [1]}')).body)
    assert posted["json"] == {"x": [1]}
    assert b"python-requests.org" in get(http, "/").body
    assert get(http, "/status/418").status == 418
    assert get(http, "/bytes/1000?seed=1").body == get(http, "/bytes/1000?seed=1").body
    image_png = get(http, "/image/png")
    assert image_png.first("Content-Type") == "image/png"
    assert image_png.body.startswith(b"\x89PNG")
    cookies = get(http, "/cookies/set?a=1&b=2")
    assert cookies.status == 302
    assert [cookie.split(";")[0] for cookie in cookies.all("Set-Cookie")] == ["a=1", "b=2"]
    assert get(http, "/relative-redirect/1").first("Location") == "/get"
    gzipped = get(http, "/gzip")
    assert gzipped.first("Content-Encoding") == "gzip"
    assert gzipped.body.startswith(b"\x1f\x8b")
    assert send(http, Call("/basic-auth/u/p")).status == 401
    assert send(http, Call("/basic-auth/u/p", fields=(("Authorization", "Basic dTpw"),))).status == 200
    assert b"".join(get(http, "/stream/3").body.splitlines()).count(b'"id"') == 3
    answers = volley(http, [Call("/uuid") for _ in range(60)], at_once=12)
    assert Counter(answer.ending for answer in answers) == {"200": 60}
    assert len({answer.worker for answer in answers}) == 3
