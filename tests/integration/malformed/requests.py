"""Mutated HTTP requests: from one that is nearly right to garbage. A list that depends on its seed only."""

from collections.abc import Callable
from random import Random

Mutation = Callable[[Random, bytes], bytes]

FIELDS = b"Host: malformed.example\r\nCookie: a=1\r\nAccept: */*\r\n"
SHAKE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
SMALL = b"GET /whoami HTTP/1.1\r\n" + FIELDS + b"\r\n"
POST = b"POST /probe/mirror HTTP/1.1\r\n" + FIELDS
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
VALID = (
    SMALL,
    b"GET /whoami?a=%20&b HTTP/1.1\r\n" + FIELDS + b"X-Odd: \xe9\r\n\r\n",
    b"HEAD /whoami HTTP/1.1\r\n" + FIELDS + b"\r\n",
    b"GET http://malformed.example/whoami HTTP/1.1\r\n" + FIELDS + b"\r\n",
    b"GET /whoami HTTP/1.0\r\n" + FIELDS + b"Connection: keep-alive\r\n\r\n",
    POST + b"Content-Length: 11\r\n\r\nhello world",
    POST + b"Content-Length: 3000\r\n\r\n" + b"x" * 3000,
    CHUNKED + b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n",
    CHUNKED + b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n",
    POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
    b"GET /ws HTTP/1.1\r\n" + FIELDS + SHAKE + b"\r\n\x81\x85\x00\x00\x00\x00hello\x88\x80\x00\x00\x00\x00",
    SMALL + POST + b"Content-Length: 2\r\n\r\nok" + SMALL,
)

TOKENS = (
    b"\r", b"\n", b"\0", b"\r\n", b"\r\n\r\n", b"\n\n", b" ", b"\t", b":", b";", b"%", b"\x7f", b"\x80", b"\xff",
    b"\x0b", b"\x1b", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/9.9", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1", b"0x10", b"1e3",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
)  # fmt: skip

LINES = (
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 99999999999999999999", b"Content-Length: -1",
    b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length: 5, 6", b"Content-Length: 0x5", b"Content-Length:",
    b"Content-Length: 5 5", b"Content-Length : 5", b"Content-Length: \xe9", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding : chunked",
    b"transfer-encoding: CHUNKED", b"Transfer-Encoding:", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b" folded: 1", b"X: 1\r\n folded", b"X: 1\r\n\tfolded", b"Host: two.example", b"Host:", b"Host: a b", b"Host: /",
    b"Host: \xff", b"No colon", b": empty", b"Bad name: 1", b"B\xe4d: 1", b"X: \x00", b"X: \x01", b"X: a\rb",
    b"X: a\nb", b"Expect: 100-continue", b"Expect: x", b"Connection: \x80", b"Connection: close, close, Upgrade",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA", b"Upgrade: websocket",
    b"Connection: Upgrade", b"Sec-WebSocket-Key: short", b"Sec-WebSocket-Version: 8", b"Sec-WebSocket-Protocol: , ,",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)  # fmt: skip

TARGETS = (
    b"", b"*", b"whoami", b"//", b"/" + b"a" * 9000, b"/" + b"a" * 40_000, b"http://", b"http:///", b"http://[",
    b"ftp://a/b", b"a:80", b"/\x00", b"/\x7f", b"/a b", b"/\xff", b"?", b"#", b"http://a:b@c/", b"/%",
    b"http://a:99999/", b"/whoami#f", b"\\",
)  # fmt: skip
METHODS = (b"", b"get", b"G\xe9T", b"G T", b"A" * 5000, b"TRACE", b"CONNECT", b"PRI", b"\x00", b"GET\t", b"POST,")
VERSIONS = (
    b"",
    b"HTTP/1.1 ",
    b"HTTP/1",
    b"HTTP/1.10",
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"http/1.1",
    b"HTTP/1.\xff",
    b"HTTPS/1.1",
    b"HTTP/ 1.1",
)
SIZES = (
    b"", b"-1", b"0x3", b"g", b"3 ", b" 3", b"3\t", b"03", b"3;", b"3;a", b"3; a=\"", b"3;\x00", b"ffffffff",
    b"fffffffffffffffff", b"7fffffffffffffff", b"3\n", b"3\r", b"+3", b"3.0", b"3;" + b"x" * 40_000,
)  # fmt: skip


def truncated(random: Random, message: bytes) -> bytes:
    return message[: random.randrange(len(message) + 1)]


def flipped(random: Random, message: bytes) -> bytes:
    changed = bytearray(message)
    for _ in range(random.choice((1, 1, 2, 8))):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def inserted(random: Random, message: bytes) -> bytes:
    place = random.randrange(len(message) + 1)
    return message[:place] + random.choice(TOKENS) + message[place:]


def removed(random: Random, message: bytes) -> bytes:
    place = random.randrange(len(message) + 1)
    return message[:place] + message[place + random.choice((1, 2, 10)) :]


def doubled(random: Random, message: bytes) -> bytes:
    start = random.randrange(len(message) + 1)
    end = min(len(message), start + random.choice((1, 10, 100)))
    return message[:end] + message[start:]


def lined(random: Random, message: bytes) -> bytes:
    """One field line more, somewhere in the head."""
    lines = message.split(b"\r\n")
    lines.insert(random.randint(1, max(1, min(5, len(lines) - 1))), random.choice(LINES))
    return b"\r\n".join(lines)


def started(random: Random, message: bytes) -> bytes:
    """Another start line, or a part of it."""
    line, _, rest = message.partition(b"\r\n")
    parts = [*line.split(b" "), b"", b"", b""][:3]
    which = random.randrange(3)
    parts[which] = random.choice((METHODS, TARGETS, VERSIONS)[which])
    return b" ".join(parts) + b"\r\n" + rest


def rechunked(random: Random, message: bytes) -> bytes:
    """Chunks that are none."""
    size, end = random.choice(SIZES), random.choice((b"\r\n", b"\n", b"\r", b"", b"\r\n\r\n"))
    last = random.choice(
        (b"0\r\n\r\n", b"0\r\n", b"0\n\n", b"0\r\nX: \x00\r\n\r\n", b"", b"0\r\n" + b"T: 1\r\n" * 9000 + b"\r\n")
    )
    return (
        b"POST /probe/mirror HTTP/1.1\r\n"
        + FIELDS
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + size
        + end
        + b"abc"
        + end
        + last
    )


def swollen(random: Random, message: bytes) -> bytes:
    """A head beyond every limit, in lines or in length."""
    line, _, rest = message.partition(b"\r\n")
    count, size = random.choice(((1, 70_000), (4000, 10), (300, 400), (2, 33_000), (101, 5)))
    return line + b"\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"x" * size) for n in range(count)) + rest


def relined(random: Random, message: bytes) -> bytes:
    return message.replace(
        b"\r\n", random.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\x00\r\n")), random.choice((1, 2, -1))
    )


def trailed(random: Random, message: bytes) -> bytes:
    """Garbage behind, where the next request should be."""
    return message + random.choice(
        (random.randbytes(50), random.choice(TOKENS) * 5, b"\r\n" * 100, b"GET / HTTP/1.1\r\n")
    )


def garbage(random: Random, message: bytes) -> bytes:
    return random.randbytes(random.choice((1, 10, 1000, 60_000)))


MUTATIONS: tuple[Mutation, ...] = (
    truncated, flipped, inserted, inserted, removed, doubled, lined, lined, lined, started, started, rechunked, swollen,
    relined, trailed, garbage,
)  # fmt: skip


def requests(seed: int, count: int) -> list[tuple[str, bytes]]:
    """What was done to each, and its bytes."""
    random = Random(seed)
    found = []
    for _ in range(count):
        message, names = random.choice(VALID), []
        for mutation in random.choices(MUTATIONS, k=random.choice((1, 1, 1, 2, 3))):
            message = mutation(random, message)
            names.append(mutation.__name__)
        found.append((" + ".join(names), message))
    return found
