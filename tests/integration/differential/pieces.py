"""Odd parts of requests and responses: methods, targets, fields. Valid HTTP, or passed on by somebody."""

from random import Random

Pair = tuple[bytes, bytes]

# What the parser of uvicorn and of the edge (llhttp) knows, and what it does not.
METHODS = (
    b"GET POST PUT PATCH DELETE OPTIONS HEAD PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT ACL BIND "
    b"REBIND UNBIND MERGE MKACTIVITY CHECKOUT M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK SOURCE"
).split()
ODD_METHODS = (*b"get Get BREW FOO X! A_B 123 QUERY PRI $ ~".split(), b"TRACE", b"CONNECT", b"A" * 40)

TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
TEXT = bytes([*range(0x21, 0x7F)]) + b"    \t"
OBS_TEXT = bytes(range(0x80, 0x100))

PLAIN_NAMES = (
    b"Accept Accept-Language Accept-Charset User-Agent Referer Origin From Cache-Control Pragma DNT Priority "
    b"Sec-Fetch-Mode Content-Language Content-Disposition Content-Location Max-Forwards Link Warning "
    b"Access-Control-Request-Method X-Requested-With X-Request-Id X_Under_Score X.Dotted Save-Data Prefer"
).split()
VALUES = (
    b"", b"1", b"a, b ,,c", b", ,", b'"quoted, \\"string\\""', b"a=b; c=d", b"*/*;q=0.1", b"=?utf-8?q?x?=", b"a\tb",
    b"%00%0d%0a", b"x" * 4000, b"caf\xc3\xa9", b"caf\xe9", b"\xff\xfe", b"{}", b"<>", b"a  b", b":", b"a:b", b"$host",
    b"${host}", b"(comment (nested))", b"0", b"-1", b"null", b"\\", b"'",
)  # fmt: skip
COOKIES = (
    b"a=1",
    b"b=2; c=3",
    b"sid=abc==",
    b"",
    b"=",
    b"a",
    b"a=\xe9",
    b'q="x, y"',
    b"a=1;b=2",
    b"long=" + b"c" * 3000,
)


def odd_name(random: Random) -> bytes:
    if random.random() < 0.4:
        return random.choice(PLAIN_NAMES)
    # Behind "X-" nothing else's name can come about.
    return b"X-" + bytes(random.choice(TOKEN) for _ in range(random.choice((1, 3, 8, 20, 60))))


def cased(name: bytes, random: Random) -> bytes:
    return random.choice((name, name, name.lower(), name.upper(), name.swapcase()))


def odd_value(random: Random) -> bytes:
    if random.random() < 0.6:
        return random.choice(VALUES)
    alphabet = random.choice((TEXT, TEXT, TEXT + OBS_TEXT, OBS_TEXT))
    return bytes(random.choice(alphabet) for _ in range(random.choice((1, 2, 10, 50)))).strip(b" \t")


def odd_fields(random: Random, most: int) -> tuple[Pair, ...]:
    """Up to so many; some repeated, some with white space around their value."""
    fields: list[Pair] = []
    for _ in range(random.randint(0, most)):
        name, value = cased(odd_name(random), random), odd_value(random)
        if fields and random.random() < 0.25:
            name = cased(random.choice(fields)[0], random)
        fields.append((name, random.choice((b"", b"", b"", b" ", b"\t ")) + value + random.choice((b"", b"", b" \t"))))
    return tuple(fields)


SEGMENTS = (
    b"a", b"b.txt", b".", b"..", b"", b"%2e", b"%2E%2e", b"%2F", b"a%2fb", b"%20", b"%25", b"%2525", b"a+b", b"a;v=1",
    b";", b"@", b":", b"!$&'()*,=", b"~", b"%C3%A9", b"%e9", b"%FF", b"%7e", b"%41", b"%0a", b"%0D%0A", b"x" * 200,
    b"\xc3\xa9", b"\xe9", b"\\", b"|", b"{a}", b"[1]", b"^", b"`", b'"', b"<a>",
    b"a%3Fb", b"a%23b", b"_rabbitbal", b"_Rabbitbal", b"%5Frabbitbal", b"_rabbitbalx", b"index.php", b"...", b"*",
)  # fmt: skip
QUERIES = (
    b"", b"a=1&b=2", b"a=1&a=2", b"a", b"&&", b"=", b"?", b"a?b", b"a=%20+%2B", b"a=%zz", b"%", b"%00", b"a=/../b",
    b"a;b", b"a[]=1", b"{}", b"\xe9", b"a=caf\xc3\xa9", b"x" * 3000, b'"', b"<>", b"a=http://b/?c", b"\\", b"^`|",
    b"a='b'", b"a=1#frag",
)  # fmt: skip


# Few, as nginx refuses them.
BAD_SEGMENTS = (b"%", b"%zz", b"%4", b"%00", b"a%00b", b"..", b"%2e%2E")


def odd_target(random: Random) -> bytes:
    kind = random.random()
    path = b"/" + b"/".join(random.choice(SEGMENTS) for _ in range(random.choice((0, 1, 1, 2, 3, 6))))
    if random.random() < 0.07:
        path += b"/" + random.choice(BAD_SEGMENTS)
    if kind < 0.05:
        return b"http://other.example" + random.choice((b"", b":81")) + random.choice((path, b"", b"?a=1"))
    if kind < 0.08:
        return path + b"#fragment"
    if random.random() < 0.4:
        path += b"?" + random.choice(QUERIES)
    return path


def body(random: Random, size: int) -> bytes:
    """Every byte value occurs; not compressible, and cheap."""
    block = random.randbytes(min(size, 4096))
    return (block * (size // len(block) + 1))[:size] if size else b""
