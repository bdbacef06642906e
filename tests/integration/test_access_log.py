"""The access log: what a line says, in each form, and what is said nowhere.

JSON lines on standard output are those of the deployment `strict`; for the file there is one of its own, of one worker.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex

import pytest

from integration.client import Answer, Call, get, send, volley
from integration.deployment import Deployment
from integration.polling import eventually

FOLDER = "/var/lib/rabbitbal/log"
SIZE = 65_536
KEEP = 2
TIMEOUT = 2

# As tools that read the logs of Apache and nginx have it.
COMBINED = re.compile(
    r'(?P<client>\S+) \S+ \S+ \[(?P<time>[^\]]+)\] "(?P<method>[A-Z]+) (?P<target>[^" ]*) HTTP/1\.1" '
    r'(?P<status>\d{3}) (?P<bytes>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"'
)
EXTRA = re.compile(
    r" queue_ms=(?P<queue_ms>\S+) app_ms=(?P<app_ms>\S+) worker=(?P<worker>\S+) attempt=(?P<attempt>\d+)"
    r" reason=(?P<reason>\S+) pool=(?P<pool>\S+)"
)


@pytest.fixture(scope="module")
def filed(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    """Access lines go to standard output and to a file that is soon full."""
    deployment = Deployment(
        directory,
        RABBITBAL_APP_DIR=app_dir,
        RABBITBAL_APP="probe:app",
        RABBITBAL_TIMEOUT=str(TIMEOUT),
        RABBITBAL_ROUTE_GRACE="0.2",
        RABBITBAL_ACCESS_LOG="stdout,file,table",
        RABBITBAL_ACCESS_LOG_FORMAT="combined+",
        RABBITBAL_ACCESS_LOG_FILE=f"{FOLDER}/access.log",
        RABBITBAL_ACCESS_LOG_SIZE=str(SIZE),
        RABBITBAL_ACCESS_LOG_KEEP=str(KEEP),
        RABBITBAL_REDACT="+x-mine",
    )
    try:
        deployment.up(workers=1)
        yield deployment
    finally:
        deployment.down()


@pytest.fixture
def key() -> str:
    return token_hex(4)


def shell(deployment: Deployment, script: str) -> str:
    """In the tap's container, as the tap."""
    return deployment.exec(deployment.container("tap"), "sh", "-c", script)


def said(deployment: Deployment, key: str) -> dict[str, str]:
    """The one line in Combined Log Format of the request with that key, by its columns."""

    def found() -> list[str]:
        return [line for line in deployment.logs(deployment.container("tap")) if f"key={key}" in line]

    (line,) = eventually(found, f"the tap writes a line of {key}")
    combined = COMBINED.match(line)
    assert combined is not None, line
    extra = EXTRA.fullmatch(line, combined.end())
    assert extra is not None, line
    return combined.groupdict() | extra.groupdict()


# --- what is said nowhere


def with_secrets(deployment: Deployment, key: str, secret: str) -> Answer:
    """A request that has it wherever credentials are."""
    target = f"/echo?key={key}&token={secret}&%70assword={secret}&a;session={secret}&next=%2Fin%3Fcode%3D{secret}"
    fields = (
        ("Authorization", f"Bearer {secret}"),
        ("Cookie", f"session={secret}; other={secret}"),
        ("X-Api-Key", secret),
        ("Referer", f"https://me:{secret}@from.example/?access_token={secret}&page=7#id_token={secret}"),
        ("Content-Type", "application/json"),
    )
    return send(deployment.http, Call(target, "POST", fields, json.dumps({"password": secret}).encode()))


def everywhere(deployment: Deployment, text: str) -> list[str]:
    """Where the tap's output, its files, or what it tells over HTTP have that text."""
    tap = deployment.container("tap")
    script = (
        "import urllib.request; print(urllib.request.urlopen('http://dashboard:8081/api/requests').read().decode())"
    )
    told = [*deployment.logs(tap), *deployment.exec(tap, "python", "-c", script).splitlines()]
    return stored(deployment, text) + [line for line in told if text in line]


def stored(deployment: Deployment, text: str) -> list[str]:
    """The files that have it."""
    # Nothing found is status 1, and no error.
    return shell(deployment, f"grep -rla {text} /var/lib/rabbitbal /tmp || test $? = 1").splitlines()


@pytest.mark.parametrize("name", ["strict", "folder"])
def test_secrets_are_in_no_output_and_no_file_of_the_tap(name: str, key: str, request: pytest.FixtureRequest) -> None:
    """They reach the application, and the rest of the request reaches the log. In JSON and in the other form."""
    deployment: Deployment = request.getfixturevalue(name)
    if name == "strict":
        deployment.ready(workers=1)
    secret = f"hidden{token_hex(8)}"
    answer = with_secrets(deployment, key, secret)
    assert answer.status == 200
    assert answer.body.count(secret.encode()) >= 9
    target = f"/echo?key={key}&token=[redacted]&%70assword=[redacted]&a;session=[redacted]&next=[redacted]"
    referer = "https://[redacted]@from.example/?access_token=[redacted]&page=7#id_token=[redacted]"
    line = deployment.ended(key) if name == "strict" else said(deployment, key)
    assert (line["target"], line["referer"]) == (target, referer)
    # Files have it a moment later.
    eventually(lambda: stored(deployment, key), "the request itself is stored")
    if name == "folder":
        eventually(lambda: f"{FOLDER}/access.log" in stored(deployment, key), "and in the file")
    assert everywhere(deployment, secret) == []


# --- what a line says


def test_a_json_line_says_how_a_request_ended(strict: Deployment, key: str) -> None:
    """Served, refused before it came to a pool, and out of time: worker, attempt, reason and times as they were."""
    strict.ready(workers=1)
    served = send(strict.http, Call(f"/work?ms=50&key={key}-served"))
    edge = strict.container("edge").addresses["front"], 8000
    refused = send(edge, Call(f"/echo?key={key}-refused", "POST", body=b"x" * 100_001))
    late = send(strict.http, Call(f"/work?ms=9000&key={key}-late"))
    assert [answer.ending for answer in (served, refused, late)] == ["200", "413 body-too-large", "504 worker-timeout"]
    worker = served.worker
    line = strict.ended(f"{key}-served")
    assert (line["event"], line["worker"], line["attempt"], line["reason"]) == ("access", worker, 1, None)
    assert line["app_ms"] >= 50
    assert 0 <= line["queue_ms"] < 1000
    line = strict.ended(f"{key}-refused")
    assert (line["status"], line["worker"], line["attempt"], line["reason"]) == (413, None, 1, "body-too-large")
    line = strict.ended(f"{key}-late")
    assert (line["status"], line["worker"], line["attempt"], line["reason"]) == (504, worker, 1, "worker-timeout")
    assert line["total_ms"] >= 4000


def test_a_line_in_combined_log_format_says_the_same(filed: Deployment, key: str) -> None:
    """A regular expression that is made for Apache's and nginx's logs reads it, whatever the client has sent."""
    filed.route(
        "version: 1\nroutes:\n"
        "  - { name: lost, match: { headers: { X-Mode: lost } }, to: nowhere }\n"
        "  - { name: default }\n"
    )
    agent = 'Mozilla/5.0 "quoted" \\ \xe9'
    served = send(filed.http, Call(f"/work?ms=50&key={key}-served", fields=(("User-Agent", agent),)))
    refused = send(filed.http, Call(f"/work?key={key}-refused", "POST", (("X-Mode", "lost"),)))
    late = send(filed.http, Call(f"/work?ms=9000&key={key}-late"))
    assert [answer.ending for answer in (served, refused, late)] == ["200", "503 unroutable", "504 worker-timeout"]
    worker = served.worker
    line = said(filed, f"{key}-served")
    assert (line["method"], line["target"], line["status"]) == ("GET", f"/work?ms=50&key={key}-served", "200")
    assert (line["worker"], line["attempt"], line["reason"], line["pool"]) == (worker, "1", "-", "default")
    assert (int(line["bytes"]), line["referer"]) == (len(served.body), "-")
    assert line["agent"].startswith(r"Mozilla/5.0 \x22quoted\x22 \x5C ")
    assert float(line["app_ms"]) >= 50
    assert float(line["queue_ms"]) >= 0
    when = datetime.strptime(line["time"], "%d/%b/%Y:%H:%M:%S %z")
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=2)
    line = said(filed, f"{key}-refused")
    assert (line["method"], line["status"], line["worker"], line["reason"]) == ("POST", "503", "-", "unroutable")
    line = said(filed, f"{key}-late")
    assert (line["status"], line["worker"], line["reason"]) == ("504", worker, "worker-timeout")


# --- the file


def files(deployment: Deployment) -> dict[str, int]:
    """Their sizes, by name."""
    sizes = shell(deployment, f"cd {FOLDER} && stat -c '%n %s' *")
    return {name: int(size) for name, size in (line.split() for line in sizes.splitlines())}


@pytest.fixture
def folder(filed: Deployment) -> Deployment:
    """The folder is there, empty, and the tap writes into it."""
    shell(filed, f"mkdir -p {FOLDER} && rm -f {FOLDER}/*")
    key = token_hex(4)

    def written() -> str:
        get(filed.http, f"/whoami?key={key}")
        return shell(filed, f"grep -h {key} {FOLDER}/* || true")

    eventually(written, "the tap tries again, and writes", 20, 1.0)
    return filed


def test_a_file_that_cannot_be_written_stops_nothing(folder: Deployment, key: str) -> None:
    """Its folder is gone: requests are served, standard output has their lines, and the tap says once what is wrong.
    When the folder is there again the file is written again, and it is said how many lines are missing."""
    tap = folder.container("tap")
    before = {event: len(folder.events(tap, event)) for event in ("tap.access_log_failed", "tap.access_log_resumed")}

    def news(event: str) -> list[dict[str, object]]:
        return folder.events(tap, event)[before[event] :]

    shell(folder, f"mv {FOLDER} {FOLDER}-away")
    try:
        for number in range(3):
            assert get(folder.http, f"/whoami?key={key}-{number}").status == 200
            assert said(folder, f"{key}-{number}")["status"] == "200"
        (failed,) = eventually(lambda: news("tap.access_log_failed"), "the tap says so")
        assert failed["sink"] == f"{FOLDER}/access.log"
    finally:
        shell(folder, f"mv {FOLDER}-away {FOLDER}")

    def resumed() -> list[dict[str, object]]:
        get(folder.http, f"/whoami?key={key}-again")
        return news("tap.access_log_resumed")

    (line,) = eventually(resumed, "the file is written again", 20, 0.5)
    assert isinstance(line["lost"], int)
    assert line["lost"] >= 3
    assert len(news("tap.access_log_failed")) == 1
    assert folder.look(tap).started_at == tap.started_at


def test_a_file_is_rotated_at_its_limit(folder: Deployment, key: str) -> None:
    """No file is longer, so many stay, no line is cut, and the newest are all there in their order."""
    count = 300
    calls = [Call(f"/whoami?key={key}-{number:03}-{'x' * 900}") for number in range(count)]
    answers = volley(folder.http, calls, 1)
    assert {answer.status for answer in answers} == {200}
    said(folder, f"{key}-{count - 1:03}")
    names = {"access.log", "access.log.1", "access.log.2"}
    eventually(lambda: set(files(folder)) == names, "the file was rotated more than once")
    sizes = files(folder)
    assert all(SIZE - 1500 < size <= SIZE for name, size in sizes.items() if name != "access.log"), sizes
    assert sizes["access.log"] <= SIZE

    def kept() -> list[str]:
        text = shell(folder, f"cd {FOLDER} && cat access.log.2 access.log.1 access.log")
        return [line for line in text.splitlines() if key in line]

    eventually(lambda: f"key={key}-{count - 1:03}" in kept()[-1], "the last line is written")
    lines = kept()
    assert all(COMBINED.match(line) for line in lines)
    numbers = [int(line.partition(f"key={key}-")[2][:3]) for line in lines]
    assert numbers == list(range(count - len(numbers), count))
    assert len(numbers) > 100
