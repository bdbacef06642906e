"""The conformance list's other sections: 12 and 13, permessage-deflate (RFC 7692); H, the handshake (RFC 6455 §4);
A, what the application does."""

import random
from collections.abc import Iterable

from integration.websocket.case import Case, Packed, Step, data, echoed, words
from integration.websocket.frames import (
    BINARY,
    CONTINUATION,
    PING,
    RSV1,
    TEXT,
    Frame,
    binary,
    text,
)

EXTENSIONS = "Sec-WebSocket-Extensions"
OFFERS = (
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=15; client_max_window_bits=15",
    "permessage-deflate; server_max_window_bits=9, permessage-deflate",
    "x-unknown; a=1, permessage-deflate",
)
PROTOCOL_ERROR = frozenset({1002})
BAD_DATA = frozenset({1002, 1007})


def compression() -> Iterable[Case]:
    rng = random.Random(7692)
    vocabulary = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(200)]
    prose = b" ".join(rng.choices(vocabulary, k=40_000))
    noise = rng.randbytes(131_072)

    def case(name: str, offer: str, what: str, *steps: Step, **more: object) -> Case:
        expected = echoed(*(s.message if isinstance(s, Packed) else s for s in steps if isinstance(s, Packed | Frame)))
        fields = ((EXTENSIONS, offer),)
        return Case(name, what, steps, **{"expected": expected, "fields": fields, **more})  # type: ignore[arg-type]

    for section, (kind, content, opcode) in enumerate((("text", prose, TEXT), ("noise", noise, BINARY)), 1):
        for number, size in enumerate((0, 16, 64, 256, 1024, 4096, 16_384, 65_536, 131_072), 1):
            messages = [Packed(Frame(opcode, content[at : at + size])) for at in range(10)]
            yield case(f"12.{section}.{number}", OFFERS[0], f"ten of {size} bytes, {kind}", *messages)
            parts = [Packed(message.message, max(size // 5, 1)) for message in messages]
            yield case(f"12.{section}.{number}f", OFFERS[0], f"ten of {size} bytes, {kind}, in fragments", *parts)
    for number, offer in enumerate(OFFERS, 1):
        messages = [Packed(Frame(TEXT, prose[at : at + 3000])) for at in range(10)]
        yield case(f"13.{number}.1", offer, offer, *messages)
        big = [Packed(Frame(BINARY, prose[at : at + 131_072]), 16_384) for at in range(3)]
        yield case(f"13.{number}.2", offer, f"{offer}: large", *big)

    plain, packed = text("not compressed"), Packed(text("compressed"))
    yield case("12.3.1a", OFFERS[0], "compressed and not, by turns", plain, packed, plain, packed)
    yield case("12.3.2a", OFFERS[0], "many empty ones", *[Packed(text(""))] * 50)

    def bad(name: str, what: str, *steps: Step, closes: frozenset[int] = PROTOCOL_ERROR) -> Case:
        return case(name, OFFERS[0], what, *steps, expected=(), closes=closes, may_miss=True)

    yield bad("12.4.1a", "a compressed ping", Frame(PING, b"x", rsv=RSV1))
    yield bad("12.4.2a", "RSV1 on a continuation", text("a", fin=False), Frame(CONTINUATION, b"b", rsv=RSV1))
    yield bad("12.4.3a", "RSV2", Frame(TEXT, b"b", rsv=2))
    yield bad("12.4.4a", "what is no deflate", Frame(BINARY, b"\xff\xff\xff\xff", rsv=RSV1), closes=BAD_DATA)
    yield bad("12.4.5a", "invalid UTF-8, compressed", Packed(text(b"a\xed\xa0\x80")), closes=frozenset({1007}))
    yield bad("12.4.6a", "a few KiB that become 24 MiB", Packed(binary(bytes(24 << 20))), closes=frozenset({1009}))
    none = {"sec-websocket-extensions": ""}
    yield Case("12.5.1a", "an extension that nobody knows", (text("x"),), echoed(text("x")),
               fields=((EXTENSIONS, "x-unknown; a=1"),), selected=none)  # fmt: skip
    yield Case("12.5.2a", "a parameter that nobody knows", (text("x"),), echoed(text("x")),
               fields=((EXTENSIONS, "permessage-deflate; x=1"),), selected=none)  # fmt: skip


USUAL = "GET {path} HTTP/1.1\nHost: {host}\n"
KEY = "Sec-WebSocket-Key: {key}\n"
UPGRADE = "Upgrade: websocket\nConnection: Upgrade\n"
VERSION = "Sec-WebSocket-Version: 13\n"
REFUSED = frozenset({200, 400, 403, 404, 405, 426, 501, 505})
"""Or an ordinary answer, as to any request that may ignore `Upgrade`: anything but 101."""


def handshakes() -> Iterable[Case]:
    hello = ((text("Hello"),), echoed(text("Hello")))
    protocol = "Sec-WebSocket-Protocol"

    def good(name: str, what: str, *fields: tuple[str, str], path: str = "/echo", **selected: str) -> Case:
        wanted = {name.replace("_", "-"): value for name, value in selected.items()}
        return Case(name, what, *hello, fields=fields, path=path, selected=wanted)

    yield good("H.1.1", "nothing but what is needed", sec_websocket_protocol="", sec_websocket_extensions="")
    yield good("H.1.2", "one subprotocol", (protocol, "chat"), sec_websocket_protocol="chat")
    yield good("H.1.3", "three, of which the second is known", (protocol, "a, echo, chat"),
               sec_websocket_protocol="echo")  # fmt: skip
    yield good("H.1.4", "two fields of subprotocols", (protocol, "a"), (protocol, "chat"),
               sec_websocket_protocol="chat")  # fmt: skip
    yield good("H.1.5", "no known subprotocol", (protocol, "a, b"), sec_websocket_protocol="")
    yield good("H.1.6", "Origin", ("Origin", "https://elsewhere.example"))
    yield good("H.1.7", "cookies and 40 other fields", ("Cookie", "a=1; b=2"), *((f"X-{n}", "v") for n in range(40)))
    yield good("H.1.8", "a field of 7 KiB", ("X-Large", "v" * 7168))
    yield good("H.1.9", "a query with odd characters", path="/echo?a=%20&b=%C3%A9&c=a+b&c=")
    yield good("H.1.10", "an Authorization field", ("Authorization", "Basic dTpw"))

    def spelt(name: str, what: str, head: str) -> Case:
        return Case(name, what, *hello, head=USUAL + head + "\n")

    yield spelt("H.2.1", "Connection: keep-alive, Upgrade",
                "Upgrade: websocket\nConnection: keep-alive, Upgrade\n" + VERSION + KEY)  # fmt: skip
    yield spelt("H.2.2", "Upgrade: WebSocket, Connection: UPGRADE",
                "Upgrade: WebSocket\nConnection: UPGRADE\n" + VERSION + KEY)  # fmt: skip
    yield spelt("H.2.3", "names in lower case", (UPGRADE + VERSION).lower() + KEY.replace("Sec-WebSocket-Key",
                "sec-websocket-key"))  # fmt: skip
    yield spelt("H.2.4", "no space behind the colons", (UPGRADE + VERSION + KEY).replace(": ", ":"))

    def refused(name: str, what: str, head: str, statuses: frozenset[int] = REFUSED) -> Case:
        return Case(name, what, head=head + "\n", statuses=statuses)

    for number, version in enumerate((0, 8, 12, 14, 99), 1):
        head = USUAL + UPGRADE + KEY + VERSION.replace("13", str(version))
        yield refused(f"H.3.{number}", f"version {version}", head, frozenset({400, 426}))
    yield refused("H.3.6", "no version", USUAL + UPGRADE + KEY, frozenset({400, 426}))
    yield refused("H.3.7", "a version that is no number", USUAL + UPGRADE + KEY + VERSION.replace("13", "x"),
                  frozenset({400, 426}))  # fmt: skip
    only_400 = frozenset({400})
    yield refused("H.4.1", "no key", USUAL + UPGRADE + VERSION, only_400)
    yield refused(
        "H.4.2", "a key of 8 bytes", USUAL + UPGRADE + VERSION + "Sec-WebSocket-Key: AAAAAAAAAAA=\n", only_400
    )
    yield refused("H.4.3", "a key that is no base64", USUAL + UPGRADE + VERSION + "Sec-WebSocket-Key: ?\n", only_400)
    yield refused("H.4.4", "two keys", USUAL + UPGRADE + VERSION + KEY + KEY, only_400)
    yield refused("H.5.1", "POST", USUAL.replace("GET", "POST") + UPGRADE + VERSION + KEY + "Content-Length: 0\n")
    yield refused("H.5.2", "HTTP/1.0", USUAL.replace("1.1", "1.0") + UPGRADE + VERSION + KEY)
    yield refused("H.5.3", "no Host", "GET {path} HTTP/1.1\n" + UPGRADE + VERSION + KEY, only_400)
    yield refused("H.5.4", "no Connection", USUAL + "Upgrade: websocket\n" + VERSION + KEY)
    yield refused("H.5.5", "no Upgrade", USUAL + "Connection: Upgrade\n" + VERSION + KEY)
    yield refused("H.5.6", "another protocol", USUAL + UPGRADE.replace("websocket", "x/1") + VERSION + KEY)


def applications() -> Iterable[Case]:
    def ends(name: str, what: str, path: str, *codes: int, expected: tuple[str, ...] = (), reason: str = "") -> Case:
        return Case(name, what, (), expected, frozenset(codes), path, reason=reason)

    yield ends("A.1.1", "the application closes", "/close", 1000)
    yield ends("A.1.2", "with a code", "/close?code=4001", 4001)
    yield ends(
        "A.1.3", "with a code and a reason", "/close?code=3000&reason=%C3%A9t%C3%A9", 3000, reason="\u00e9t\u00e9"
    )
    yield ends("A.1.4", "with a reason of 123 bytes", "/close?code=1011&reason=" + "r" * 123, 1011, reason="r" * 123)
    yield ends("A.1.5", "it speaks first, and closes", "/first", 1000,
               expected=words("h\u00e9llo") + data(bytes(range(256)) * 256))  # fmt: skip
    yield ends("A.1.6", "it sends 1 MiB at once, and closes", "/first?blocks=16", 1000,
               expected=words("h\u00e9llo") + data(bytes(range(256)) * 4096))  # fmt: skip
    yield ends("A.1.7", "it raises when it has accepted", "/fail?accepted=1", 1011)
    yield ends("A.1.8", "it returns when it has accepted", "/nothing?accepted=1", 1000, 1011)
    yield Case("A.2.1", "it refuses", path="/refuse", statuses=frozenset({403}))
    yield Case("A.2.2", "it answers 401 with a body", path="/deny", statuses=frozenset({401}),
               selected={"x-why": "no ticket", "content-type": "text/plain"})  # fmt: skip
    yield Case("A.2.3", "it raises before it accepts", path="/fail", statuses=frozenset({500}))
    yield Case("A.2.4", "it returns before it accepts", path="/nothing", statuses=frozenset({500, 502}))
    yield Case("A.2.5", "it sets fields in the handshake's answer", path="/handshake?quiet=1",
               selected={"x-seen": "yes", "set-cookie": "a=1, b=2; Path=/"})  # fmt: skip


MORE_CASES = [*compression(), *handshakes(), *applications()]
