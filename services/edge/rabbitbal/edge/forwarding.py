"""What a proxy changes in the fields of a message on its way, as pure functions.

Everything else travels as it came: order, repeats, unknown fields.
"""

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from rabbitbal.wire.fields import Field, Fields, end_to_end, first, values

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

VIA_NAME = b"rabbitbal"

# nginx uses Connection for its own hop, so it passes on here what the client's Connection said.
CLIENT_CONNECTION = b"rabbitbal-connection"

# Set here, from what the connection says or from what a trusted proxy in front says; nobody else's word counts.
_FORWARDED = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip"}
)


@dataclass(frozen=True)
class Peer:
    """The other end of the client connection."""

    address: str
    scheme: str
    trusted: bool


class TrustedProxies:
    """The networks whose X-Forwarded-* fields are believed. Raises ValueError for what is not a network."""

    def __init__(self, networks: str) -> None:
        self._networks: list[Network] = [
            ipaddress.ip_network(part.strip(), strict=False) for part in networks.split(",") if part.strip()
        ]
        self.trusts = lru_cache(1024)(self._trusts)

    def _trusts(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


def request_fields(fields: Fields, peer: Peer, http_version: str) -> Fields:
    """The fields of a request as the application will see them."""
    kept: Fields = []
    given: dict[bytes, bytes] = {}
    if peer.trusted:
        fields = [*((b"connection", value) for value in values(fields, CLIENT_CONNECTION)), *fields]
    for field in end_to_end(fields):
        name = field[0].lower()
        if name in _FORWARDED:
            if peer.trusted:
                given[name] = given[name] + b", " + field[1] if name in given else field[1]
            continue
        if name.startswith(b"x-forwarded-"):
            # Nobody in front of us is known to set these, so a client did.
            continue
        # Expect was answered by the edge (RFC 9110 §10.1.1); our own fields are ours to set.
        if name == b"expect" or name == b"via" or name.startswith(b"rabbitbal-"):
            continue
        kept.append(field)
    kept += _forwarded(given, peer, first(fields, b"host") or b"")
    kept.append(_via(fields, http_version))
    return kept


def _forwarded(given: dict[bytes, bytes], peer: Peer, host: bytes) -> Fields:
    client = given.get(b"x-forwarded-for") or peer.address.encode()
    scheme = given.get(b"x-forwarded-proto") or peer.scheme.encode()
    host = given.get(b"x-forwarded-host") or host
    fields = [(b"X-Forwarded-For", client), (b"X-Forwarded-Proto", scheme)]
    if host:
        fields.append((b"X-Forwarded-Host", host))
    if port := given.get(b"x-forwarded-port"):
        fields.append((b"X-Forwarded-Port", port))
    fields.append((b"Forwarded", given.get(b"forwarded") or _rfc7239(client, scheme, host)))
    return fields


def is_https(fields: Fields) -> bool:
    """Whether the client itself speaks TLS, by the fields that `request_fields` made. Of several proxies the first one
    knows; one that has a WebSocket before it may call it `wss`."""
    scheme = first(fields, b"x-forwarded-proto") or b""
    return scheme.partition(b",")[0].strip().lower() in (b"https", b"wss")


def _rfc7239(client: bytes, scheme: bytes, host: bytes) -> bytes:
    """RFC 7239 §4, §6: "an IPv6 address is always enclosed in square brackets", and then quoted."""
    hops = []
    for address in client.split(b","):
        address = address.strip()
        hops.append(b'for="[%s]"' % address if b":" in address else b"for=" + (_plain(address) or b"unknown"))
    parts = [hops[0], b"proto=" + (_plain(scheme) or b"http")]
    if host:
        parts.insert(1, b'host="%s"' % host.replace(b"\\", b"\\\\").replace(b'"', b'\\"'))
    return b", ".join([b";".join(parts), *hops[1:]])


def _plain(text: bytes) -> bytes:
    return text if text.replace(b".", b"").replace(b"-", b"").isalnum() else b""


def response_fields(fields: Fields, date: bytes) -> Fields:
    """The fields of a response as the client will see them; ``date`` is added where the application set none.

    RFC 9110 §6.6.1: "A recipient with a clock that receives a response message without a Date header field MUST record
    the time it was received and append a corresponding Date header field to the message's header section if it is ...
    forwarded downstream."
    """
    kept = [
        field
        for field in end_to_end(fields)
        if not (name := field[0].lower()).startswith(b"rabbitbal-") and name != b"via"
    ]
    if first(kept, b"date") is None:
        kept.append((b"date", date))
    # The version is that of the message received, and workers speak one.
    kept.append(_via(fields, "1.1"))
    return kept


def _via(fields: Fields, http_version: str) -> Field:
    """RFC 9110 §7.6.3: every proxy appends itself; several fields may be joined into one."""
    hops = [*values(fields, b"via"), b"%s %s" % (http_version.encode(), VIA_NAME)]
    return (b"via", b", ".join(hops))
