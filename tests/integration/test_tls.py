"""The overlay compose/tls.yml: TLS and HTTP/2 from clients, with certificates of a local CA, and the script that makes
these."""

import hashlib
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from integration.client import Call, get, send
from integration.deployment import ROOT, Deployment

SCRIPT = ROOT / "compose" / "base" / "certs.sh"
BODY = bytes(range(256)) * 4096  # 1 MiB

# What holds by HTTP/2 holds by HTTP/1.1 over TLS.
both = pytest.mark.parametrize("http2", [True, False], ids=["HTTP/2", "HTTP/1.1"])


def make_certificates(directory: Path, *arguments: str) -> str:
    """Runs the script. What it said."""
    environment = os.environ | {"RABBITBAL_CERTIFICATES": str(directory)}
    return subprocess.run([SCRIPT, *arguments], env=environment, check=True, capture_output=True, text=True).stderr


class Site:
    """A deployment as clients of https see it."""

    def __init__(self, deployment: Deployment, ca: Path) -> None:
        self.deployment = deployment
        self.port = int(deployment.container("nginx").ports["8443/tcp"][0]["HostPort"])
        self._ca = ca

    def trusting(self) -> ssl.SSLContext:
        """Trusts the local CA and no other."""
        return ssl.create_default_context(cafile=str(self._ca))

    def client(self, http2: bool) -> httpx.Client:
        url = f"https://localhost:{self.port}"
        return httpx.Client(base_url=url, verify=self.trusting(), http1=not http2, http2=http2, timeout=60)

    def agreed(self, context: ssl.SSLContext, name: str = "localhost") -> tuple[str | None, str | None]:
        """The versions of TLS and of HTTP. Raises SSLError."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as connection,
        ):
            return connection.version(), connection.selected_alpn_protocol()


@pytest.fixture(scope="module")
def site(directory: Path, app_dir: str, images: None) -> Iterator[Site]:
    """One worker, and the overlay."""
    certificates = directory / "certs"
    make_certificates(certificates)
    deployment = Deployment(
        directory,
        ("compose/tls.yml",),
        RABBITBAL_APP_DIR=app_dir,
        RABBITBAL_APP="probe:app",
        RABBITBAL_BODY_LIMIT="2000000",
        RABBITBAL_HTTPS_PORT="0",
        RABBITBAL_CERTIFICATES=str(certificates),
    )
    try:
        deployment.up(workers=1)
        yield Site(deployment, certificates / "ca.pem")
    finally:
        deployment.down()


def seen(answer: httpx.Response) -> dict[str, Any]:
    """The request as the application saw it."""
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def given(answer: httpx.Response, name: str) -> list[str]:
    return [value for key, value in seen(answer)["headers"] if key == name]


# --- TLS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_http_2_is_agreed_on_by_alpn(site: Site, version: ssl.TLSVersion) -> None:
    """With either version of TLS; a client that offers HTTP/1.1 alone, or nothing, gets that."""
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)):
        context = site.trusting()
        context.minimum_version = context.maximum_version = version
        if offered:
            context.set_alpn_protocols(offered)
        assert site.agreed(context) == (version.name.replace("_", "."), chosen)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_the_certificate_is_for_this_machine(site: Site, name: str) -> None:
    assert site.agreed(site.trusting(), name)[0] == "TLSv1.3"


def test_the_certificate_is_for_no_other_name(site: Site) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="example"):
        site.agreed(site.trusting(), "example.com")


def test_the_certificate_is_not_good_without_the_ca(site: Site) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        site.agreed(ssl.create_default_context())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_an_old_version_is_refused(site: Site) -> None:
    """By nginx, with an alert: this client would do TLS 1.1."""
    context = site.trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        site.agreed(context)


def test_a_weak_cipher_is_refused(site: Site) -> None:
    """CBC with SHA-1, the last of the old ones that the certificate's key would allow."""
    context = site.trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
    with pytest.raises(ssl.SSLError, match="ALERT_HANDSHAKE_FAILURE"):
        site.agreed(context)


def test_plain_http_stays_where_it_was(site: Site) -> None:
    """And is told so where TLS is spoken."""
    answer = get(site.deployment.http, "/echo")
    assert ["x-forwarded-proto", "http"] in json.loads(answer.body)["headers"]
    strayed = send(("127.0.0.1", site.port), Call("/echo"))
    assert (strayed.status, strayed.reason) == (400, "bad-request")


# --- HTTP


@both
def test_a_request_is_seen_as_it_was_sent(site: Site, http2: bool) -> None:
    """And that it came by https. The Host of HTTP/2 is its :authority."""
    with site.client(http2) as client:
        answer = client.get("/echo/a%2Fb?x=%20&y")
    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert (seen(answer)["method"], seen(answer)["target"]) == ("GET", "/echo/a%2Fb?x=%20&y")
    authority = f"localhost:{site.port}"
    assert given(answer, "host") == [authority]
    assert given(answer, "x-forwarded-host") == [authority]
    assert given(answer, "x-forwarded-proto") == ["https"]
    (client_address,) = given(answer, "x-forwarded-for")
    assert given(answer, "forwarded") == [f'for={client_address};host="{authority}";proto=https']
    assert not any(name.startswith(":") for name, _ in seen(answer)["headers"])


@both
def test_a_forged_scheme_is_dropped(site: Site, http2: bool) -> None:
    with site.client(http2) as client:
        answer = client.get("/echo", headers={"X-Forwarded-Proto": "forged", "Forwarded": "proto=forged"})
    assert given(answer, "x-forwarded-proto") == ["https"]
    assert "forged" not in answer.text


def test_split_cookies_are_one_field_again(site: Site) -> None:
    """RFC 9113 §8.2.3: HTTP/2 may split them, and an application that knows HTTP/1.1 alone must not see it."""
    with site.client(http2=True) as client:
        answer = client.get("/echo", headers=[("Cookie", "a=1"), ("X-Between", "-"), ("Cookie", "b=2")])
    assert given(answer, "cookie") == ["a=1; b=2"]


@both
def test_cookies_of_a_response_stay_apart(site: Site, http2: bool) -> None:
    with site.client(http2) as client:
        answer = client.get("/probe/special")
    assert answer.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2; Expires=Thu, 01 Jan 2032 00:00:00 GMT"]
    assert "connection" not in answer.headers or not http2


@both
def test_a_megabyte_passes_both_ways(site: Site, http2: bool) -> None:
    """Of a declared length, and of none."""
    wanted = hashlib.sha256(BODY).digest()
    with site.client(http2) as client:
        for content in (BODY, iter([BODY[:100_000], BODY[100_000:]])):
            answer = client.post("/probe/mirror", content=content)
            assert answer.status_code == 200, answer.text
            assert hashlib.sha256(answer.content).digest() == wanted


def test_a_body_that_is_declared_too_large_is_refused(site: Site) -> None:
    """At its head, with the reason, by HTTP/2 too."""
    with site.client(http2=True) as client:
        # The little that follows is not read; httpx would wait for leave to send more.
        answer = client.post("/echo", content=b"little", headers={"Content-Length": "2000001"})
    assert (answer.status_code, answer.headers.get("rabbitbal-error")) == (413, "body-too-large")
    assert answer.text == "rabbitbal: body-too-large: more than 2000000 bytes\n"


def test_many_requests_share_a_connection(site: Site) -> None:
    """Also when some of them fail."""
    with site.client(http2=True) as client:
        for number in range(30):
            status = 404 if number % 3 == 0 else 200
            assert client.get(f"/status/{status}").status_code == status
        assert client.get("/probe/raises").headers["rabbitbal-error"] == "app-error"
        assert client.get("/echo").status_code == 200


# --- streams


@both
def test_each_event_comes_when_it_is_sent(site: Site, http2: bool) -> None:
    """The page would go on for a day: whoever waited for its end would have none of it."""
    with site.client(http2) as client, client.stream("GET", "/sse?events=1000000&ms=100") as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        ids = [line for line in lines_until(lines, 5) if line.startswith("id: ")]
    assert ids == [f"id: {number}" for number in range(1, 6)]


def lines_until(lines: Iterator[str], events: int) -> Iterator[str]:
    for line in lines:
        yield line
        if line == f"id: {events}":
            return


@both
def test_a_stream_that_breaks_does_not_look_whole(site: Site, http2: bool) -> None:
    """Its worker dies: HTTP/2 resets the stream, HTTP/1.1 leaves out the last chunk."""
    with site.client(http2) as client, client.stream("GET", "/sse?events=1000000&ms=100") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "id: 1"
        with site.client(http2) as other:
            assert other.post("/crash").headers["rabbitbal-error"] == "worker-lost"
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in lines:
                pass
    site.deployment.answering()


def test_a_websocket_passes_by_tls(site: Site) -> None:
    """By HTTP/1.1, which browsers use for it."""
    with connect(
        f"wss://localhost:{site.port}/ws", ssl=site.trusting(), subprotocols=[Subprotocol("chat")]
    ) as connection:
        for message in ("a text", b"\x00\xff", BODY[:100_000]):
            connection.send(message)
            assert connection.recv(timeout=30) == message


# --- certs.sh


def read_certificate(directory: Path, name: str, *what: str) -> str:
    """What openssl prints of a certificate."""
    command = ["openssl", "x509", "-noout", "-in", str(directory / f"{name}.pem"), *what]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_certificates_are_made_once(tmp_path: Path) -> None:
    """A second run says until when they are good, and changes nothing. The keys are for their owner."""
    assert "made a new CA" in make_certificates(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"ca.pem", "ca.key", "server.pem", "server.key"}
    assert [(tmp_path / key).stat().st_mode & 0o777 for key in ("ca.key", "server.key")] == [0o600, 0o600]
    said = make_certificates(tmp_path)
    assert "made" not in said
    assert read_certificate(tmp_path, "server", "-enddate").partition("=")[2].strip() in said
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    names = read_certificate(tmp_path, "server", "-ext", "subjectAltName")
    assert "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1" in names
    assert "Permitted:\n      DNS:localhost\n" in read_certificate(tmp_path, "ca", "-ext", "nameConstraints")


def test_a_new_certificate_is_made_when_asked(tmp_path: Path) -> None:
    """By the same CA, so clients need not be told."""
    make_certificates(tmp_path)
    ca, old = (tmp_path / "ca.pem").read_bytes(), read_certificate(tmp_path, "server", "-serial")
    make_certificates(tmp_path, "--force")
    assert (tmp_path / "ca.pem").read_bytes() == ca
    assert read_certificate(tmp_path, "server", "-serial") != old


@pytest.mark.parametrize("damage", ["expires soon", "another key", "no key", "another CA"])
def test_what_is_not_good_is_made_anew(tmp_path: Path, damage: str) -> None:
    make_certificates(tmp_path)
    old = read_certificate(tmp_path, "server", "-serial")
    other = tmp_path / "other"
    make_certificates(other)
    if damage == "expires soon":
        for command in (
            "req -new -key server.key -subj /CN=localhost -out csr",
            "x509 -req -in csr -days 20 -CA ca.pem -CAkey ca.key -set_serial 1 -out server.pem",
        ):
            subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)
        old = read_certificate(tmp_path, "server", "-serial")
    elif damage == "another key":
        (other / "server.key").replace(tmp_path / "server.key")
    elif damage == "no key":
        (tmp_path / "server.key").unlink()
    else:
        for name in ("ca.pem", "ca.key"):
            (other / name).replace(tmp_path / name)
    said = make_certificates(tmp_path)
    assert ("new CA" in said, "new server certificate" in said) == (False, True)
    assert read_certificate(tmp_path, "server", "-serial") != old
    verify = ["openssl", "verify", "-CAfile", "ca.pem", "server.pem"]
    assert subprocess.run(verify, cwd=tmp_path, check=False, capture_output=True).returncode == 0


def test_an_unknown_argument_is_refused(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        make_certificates(tmp_path, "--farce")
    assert caught.value.stderr == "rabbitbal: certs.sh takes --force or nothing\n"
