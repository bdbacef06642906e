"""What the tap says over HTTP. Read only; the tap listens to the networks `watch` alone, and so does the operator."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx

from rabbitbal.operator.errors import Failed
from rabbitbal.operator.settings import Settings
from rabbitbal.runtime.settings import read

T = TypeVar("T")

# Seconds: without a byte, and for a whole answer.
TIMEOUT = 10.0
TOTAL = 30.0
# Bytes of an answer, and of a line of a stream: a request with its body, as text.
LONGEST = 16 * 1024 * 1024
# Of what the tap says of a refusal, for people.
LONGEST_TEXT = 300


class Tap:
    """Raises Failed where the tap cannot be asked, refuses, or answers nonsense."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        # Nothing of the environment: a proxy is not meant for the tap.
        self._client = httpx.Client(
            base_url=url.rstrip("/") + "/", timeout=TIMEOUT, transport=transport, trust_env=False
        )
        self._url = url

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, /, **params: str | int | None) -> Any:
        """The JSON of an answer. A parameter that is None is not sent."""
        deadline, body = time.monotonic() + TOTAL, bytearray()
        try:
            with self._client.stream("GET", path, params=_given(params)) as response:
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > LONGEST:
                        raise Failed("the tap's answer is larger than any that makes sense")
                    if time.monotonic() > deadline:
                        raise Failed(f"the tap's answer was not complete after {TOTAL:g} s")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.status_code != httpx.codes.OK:
            raise self._refused(path, response.status_code, bytes(body))
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Failed(f"{self._url}: {path}: no JSON") from error

    def stream(self, path: str, /, **params: str | int | None) -> Iterator[str]:
        """Lines as they come, for as long as the tap sends them. A tap that says nothing for a while is taken for
        gone, so it sends empty lines; they are not given on."""
        try:
            with self._client.stream("GET", path, params=_given(params)) as response:
                if response.status_code != httpx.codes.OK:
                    raise self._refused(path, response.status_code, _start(response))
                yield from _lines(response)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> Failed:
        return Failed(f"cannot ask the tap at {self._url}: {error or type(error).__name__}")

    def _refused(self, path: str, status: int, body: bytes) -> Failed:
        return Failed(f"{self._url}: {path}: {_said(body) or f'status {status}'}")


def ask_tap(question: Callable[[Tap], T]) -> T:
    """Of the tap that the settings name. Raises Failed."""
    tap = Tap(read(Settings).tap_url)
    try:
        return question(tap)
    finally:
        tap.close()


def _given(params: dict[str, str | int | None]) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def _lines(response: httpx.Response) -> Iterator[str]:
    rest = bytearray()
    for piece in response.iter_bytes():
        rest += piece
        *lines, rest = rest.split(b"\n")
        for line in lines:
            if line:
                yield line.decode("utf-8", "replace")
        if len(rest) > LONGEST:
            raise Failed("a line of the tap's answer is longer than any that makes sense")
    if rest:
        yield rest.decode("utf-8", "replace")


def _start(response: httpx.Response) -> bytes:
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > LONGEST_TEXT * 4:
            break
    return bytes(body)


def _said(body: bytes) -> str:
    """FastAPI's `detail`: a text, or a list of what is wrong with the parameters."""
    try:
        detail = json.loads(body).get("detail")
        if isinstance(detail, list):
            detail = "; ".join(str(each.get("msg")) for each in detail)
    except (ValueError, RecursionError, AttributeError):
        detail = None
    return detail[:LONGEST_TEXT] if isinstance(detail, str) else ""
