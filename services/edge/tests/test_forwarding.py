"""What a proxy changes in fields, as pure functions. That the edge applies them is in test_http.py."""

import pytest

from rabbitbal.edge.forwarding import Peer, TrustedProxies, request_fields, response_fields
from rabbitbal.wire.fields import Fields, first, values

NGINX = Peer("10.0.0.2", "http", trusted=True)
STRANGER = Peer("203.0.113.9", "http", trusted=False)
DATE = b"Thu, 01 Jan 1970 00:00:00 GMT"


def test_fields_that_are_nobodys_business_travel_as_they_came() -> None:
    """Order, repeats, case of names and values."""
    fields: Fields = [(b"Host", b"a"), (b"Cookie", b"a=1"), (b"X-Odd", b""), (b"cookie", b"b=2"), (b"X-Odd", b"\xff")]
    assert request_fields(fields, STRANGER, "1.1")[:5] == fields
    assert response_fields(fields, DATE)[:5] == fields


def test_what_the_client_named_in_connection_is_removed_behind_nginx() -> None:
    """nginx passes that list on in a field of ours; from anybody else it says nothing."""
    fields = [(b"Host", b"a"), (b"Rabbitbal-Connection", b"X-Private"), (b"X-Private", b"1"), (b"X-Public", b"2")]
    behind = request_fields(fields, NGINX, "1.1")
    direct = request_fields(fields, STRANGER, "1.1")
    assert (first(behind, b"x-private"), first(behind, b"x-public")) == (None, b"2")
    assert first(direct, b"x-private") == b"1"
    assert {first(behind, b"rabbitbal-connection"), first(direct, b"rabbitbal-connection")} == {None}


@pytest.mark.parametrize(
    ("given", "forwarded"),
    [
        ({}, b'for=10.0.0.2;host="a";proto=http'),
        ({b"X-Forwarded-For": b"192.0.2.1, 198.51.100.2"}, b'for=192.0.2.1;host="a";proto=http, for=198.51.100.2'),
        ({b"X-Forwarded-For": b"2001:db8::1"}, b'for="[2001:db8::1]";host="a";proto=http'),
        ({b"X-Forwarded-For": b'evil"; for=x'}, b'for=unknown;host="a";proto=http'),
        ({b"X-Forwarded-Host": b'b"c'}, b'for=10.0.0.2;host="b\\"c";proto=http'),
        ({b"X-Forwarded-Proto": b"https;x"}, b'for=10.0.0.2;host="a";proto=http'),
        ({b"Forwarded": b"for=1.2.3.4;proto=https"}, b"for=1.2.3.4;proto=https"),
    ],
)
def test_forwarded_says_what_the_trusted_proxy_said(given: dict[bytes, bytes], forwarded: bytes) -> None:
    """In RFC 7239's grammar whatever the parts contain."""
    fields = request_fields([(b"Host", b"a"), *given.items()], NGINX, "1.1")
    assert list(values(fields, b"forwarded")) == [forwarded]


def test_a_request_without_a_host_has_no_forwarded_host() -> None:
    """HTTP/1.0 may lack it."""
    fields = request_fields([], STRANGER, "1.0")
    assert (first(fields, b"x-forwarded-host"), first(fields, b"forwarded")) == (None, b"for=203.0.113.9;proto=http")
    assert first(fields, b"via") == b"1.0 rabbitbal"


def test_a_response_gets_a_date_only_where_it_has_none() -> None:
    """The application's own is kept."""
    assert first(response_fields([], DATE), b"date") == DATE
    assert list(values(response_fields([(b"Date", b"x")], DATE), b"date")) == [b"x"]


@pytest.mark.parametrize(
    ("address", "trusted"),
    [("10.1.2.3", True), ("11.0.0.1", False), ("::1", True), ("2001:db8::1", False), ("", False), ("client", False)],
)
def test_only_addresses_in_the_networks_are_trusted(address: str, trusted: bool) -> None:
    """A unix socket's peer has no address and is not trusted."""
    assert TrustedProxies("10.0.0.0/8, ::1").trusts(address) is trusted


@pytest.mark.parametrize("networks", ["nginx", "10.0.0.0/33", "10.0.0.0/8;192.168.0.0/16"])
def test_what_is_not_a_network_is_refused(networks: str) -> None:
    """When the edge starts, not when the first request comes."""
    with pytest.raises(ValueError):
        TrustedProxies(networks)


def test_x_forwarded_fields_that_nobody_sets_are_dropped_even_from_a_trusted_proxy() -> None:
    """The proxy in front replaces those it knows; another one came from the client through it."""
    peer = Peer("10.0.0.1", "http", trusted=True)
    names = {name.lower() for name, _ in request_fields([(b"host", b"a"), (b"x-forwarded-prefix", b"/x")], peer, "1.1")}
    assert b"x-forwarded-prefix" not in names
