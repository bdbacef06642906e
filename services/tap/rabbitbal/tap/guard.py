"""What every answer of the tap's HTTP server says to a browser, and which requests get none.

The page shows what clients have sent, and a browser on the same machine as the tap also runs other people's pages. So
the tap answers only to its own names (a foreign name that is made to lead to 127.0.0.1 is not one), not to requests
that another site's page makes, and nothing that it shows may run or load anything.
"""

import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]", "dashboard"})
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:]+?)\.?(:[0-9]{1,5})?")


class Guard:
    """ASGI middleware. ``hosts`` are names that the operator has added."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = OWN_HOSTS | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(Headers(scope=scope)) or self._app
        await answer(scope, receive, guarded)

    def _refusal(self, headers: Headers) -> PlainTextResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._own(hosts[0]):
            named = repr(hosts[0][:100]) if hosts else "no name"
            # RFC 9110 §15.5.20: 421 "indicates that the request was directed at a server that is unable or unwilling
            # to produce an authoritative response for the target URI."
            return PlainTextResponse(
                f"rabbitbal: this server does not answer to {named}, so that no other name can be made to lead to it. "
                "Use localhost or 127.0.0.1, or add the name to RABBITBAL_DASHBOARD_HOSTS.\n",
                421,
            )
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return PlainTextResponse("rabbitbal: another site's page may not ask this server.\n", 403)
        return None

    def _own(self, host: str) -> bool:
        found = _HOST.fullmatch(host.lower())
        return found is not None and found[1] in self._hosts
