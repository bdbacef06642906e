"""A network backend for httpcore that notes what happened on the wire while one request was tried.

httpcore says that a request failed, not whether its connection was new or whether bytes came back; what may be repeated
depends on both.
"""

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any

import httpcore


@dataclass(slots=True)
class Attempt:
    """``connected``: a connection was opened for it; ``sent``, ``received``: at least one byte may have been."""

    connected: bool = False
    sent: bool = False
    received: bool = False


# httpcore connects, writes and reads in the task that made the request, so the current attempt is a context variable.
current: ContextVar[Attempt] = ContextVar("attempt")


class ObservedBackend(httpcore.AsyncNetworkBackend):
    def __init__(self) -> None:
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        current.get().connected = True
        return _ObservedStream(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        current.get().connected = True
        return _ObservedStream(await self._backend.connect_unix_socket(path, timeout, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _ObservedStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        if data:
            current.get().received = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        current.get().sent = True
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise NotImplementedError("upstreams are plain HTTP")

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
