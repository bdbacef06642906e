"""The demonstration application, run through the ASGI target."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from rabbitbal.wire.message import Request, Response
from rabbitbal.worker.targets import Target, load_target

DIRECTORY = Path(__file__).parents[3] / "compose" / "demo"


@pytest.fixture
async def demo(monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setattr("sys.path", [str(DIRECTORY)])
    monkeypatch.delitem(__import__("sys").modules, "demo", raising=False)
    monkeypatch.setenv("RABBITBAL_WORKER_ID", "worker<1>")
    target = load_target("demo:app", str(DIRECTORY), None, 4)
    await target.start()
    return target


async def get(demo: Target, target: bytes) -> Response:
    return await demo(Request("GET", target, [(b"Host", b"h")]))


def media_type(response: Response) -> bytes:
    return dict(response.fields)[b"content-type"]


async def test_the_first_page_names_its_worker_and_links_the_others(demo: Target) -> None:
    """It needs nothing else from anywhere."""
    response = await get(demo, b"/")
    page = response.body.decode()
    assert (response.status, media_type(response)) == (200, b"text/html; charset=utf-8")
    assert "worker&lt;1&gt;" in page
    assert 'href="/whoami"' in page
    assert "http://" not in page
    assert "https://" not in page


async def test_whoami_names_the_worker(demo: Target) -> None:
    """As plain text."""
    assert (await get(demo, b"/whoami")).body == b"worker<1>\n"


async def test_work_takes_its_time(demo: Target) -> None:
    """At least as long as was asked for."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    response = await get(demo, b"/work?ms=30")
    assert json.loads(response.body) == {"worker": "worker<1>", "ms": 30}
    assert loop.time() - before >= 0.029


async def test_work_is_cancelled_with_its_request(demo: Target) -> None:
    """It does not hold its slot for ten minutes."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(get(demo, b"/work?ms=600000"), 0.02)


async def test_echo_shows_the_request_as_it_came(demo: Target) -> None:
    """Method, target, the pairs of fields in order, the body as text."""
    fields = [(b"Host", b"h"), (b"X-B", b"1"), (b"X-A", b"caf\xe9"), (b"X-B", b"2")]
    response = await demo(Request("PATCH", b"/echo?a=%20&a", fields, "h\u00e9".encode()))
    expected = {
        "method": "PATCH",
        "target": "/echo?a=%20&a",
        "headers": [["host", "h"], ["x-b", "1"], ["x-a", "caf\u00e9"], ["x-b", "2"]],
        "body": "h\u00e9",
    }
    assert expected == json.loads(response.body)


async def test_echo_shows_bytes_that_are_no_text_in_base64(demo: Target) -> None:
    """JSON has no bytes."""
    response = await demo(Request("POST", b"/echo", [], b"\xff\x00"))
    assert json.loads(response.body)["body"] == {"base64": "/wA="}


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
async def test_bytes_has_the_size_that_was_asked_for(demo: Target, size: int) -> None:
    """And the same content each time."""
    response = await get(demo, b"/bytes/%d" % size)
    assert (bytes(range(256)) * 1000)[:size] == response.body
    assert media_type(response) == b"application/octet-stream"


async def test_stream_sends_its_chunks(demo: Target) -> None:
    """As many as were asked for."""
    assert (await get(demo, b"/stream?chunks=2&ms=1")).body == b"chunk 1 of 2\nchunk 2 of 2\n"


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"200 OK\n"), (204, b""), (304, b""), (418, b"418 I'm a Teapot\n"), (599, b"599 \n")]
)
async def test_status_answers_with_it(demo: Target, status: int, body: bytes) -> None:
    """From 200 to 599."""
    response = await get(demo, b"/status/%d" % status)
    assert (status, body.lower()) == (response.status, response.body.lower())


@pytest.mark.parametrize(
    "target",
    [b"/work?ms=x", b"/work?ms=-1", b"/work?ms=600001", b"/work?ms=1_0", b"/bytes/", b"/bytes/9999999999",
     b"/status/199", b"/status/600", b"/status/", b"/stream?chunks=1e3", b"/stream?ms=60001", b"/bytes/%C2%B2"],
)  # fmt: skip
async def test_bad_numbers_are_refused(demo: Target, target: bytes) -> None:
    """With 400 and the bounds."""
    response = await get(demo, target)
    assert response.status == 400
    assert b"is not a number from" in response.body


@pytest.mark.parametrize("target", [b"/nothing", b"/whoami/", b"/bytes", b"//", b"*"])
async def test_there_are_no_other_pages(demo: Target, target: bytes) -> None:
    """404."""
    assert (await get(demo, target)).status == 404


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/work?ms=1&key=abc", {"event": "ran", "key": "abc", "ms": 1}),
        (b"/whoami?key=a%22b", {"event": "ran", "key": 'a"b', "ms": 0}),
        (b"/count/xyz", {"event": "ran", "key": "xyz", "ms": 0}),
    ],
)
async def test_a_request_with_a_key_prints_that_it_runs(
    demo: Target, capsys: pytest.CaptureFixture[str], target: bytes, expected: dict[str, Any]
) -> None:
    """One JSON line on standard output, so that executions can be counted across processes."""
    await get(demo, target)
    assert expected == json.loads(capsys.readouterr().out)


async def test_a_key_is_printed_at_the_start_of_the_run(demo: Target, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that dies in the middle has run it too."""
    work = asyncio.create_task(get(demo, b"/work?ms=600000&key=k"))
    await asyncio.wait((work,), timeout=0.02)
    assert json.loads(capsys.readouterr().out)["key"] == "k"
    work.cancel()


async def test_a_request_without_a_key_prints_nothing(demo: Target, capsys: pytest.CaptureFixture[str]) -> None:
    """The log stays readable."""
    await get(demo, b"/whoami")
    assert capsys.readouterr().out == ""


async def test_crash_kills_its_own_process(demo: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SIGKILL, which nobody can catch (nor this test: the call is recorded)."""
    killed = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append((pid, number)))
    monkeypatch.setattr("os.getpid", lambda: 4711)
    with pytest.raises(Exception, match="without sending a response"):
        await get(demo, b"/crash")
    assert killed == [(4711, signal.SIGKILL)]
