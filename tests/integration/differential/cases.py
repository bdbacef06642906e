"""The generated requests: a list that depends on its seed only."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from random import Random

from integration.differential import pieces
from integration.differential.case import Case, Fields, Order

KIB = 1024
Family = Callable[[Random, Order], Case]

# Sizes of bodies around what is treated apart: inline or streamed, buffers of nginx, high-water marks.
SIZES = (0, 1, 2, 100, 1000, 4095, 4096, 8192, 16 * KIB, 32 * KIB + 1)
EDGES = (64 * KIB - 257, 64 * KIB - 256, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 128 * KIB, 256 * KIB + 1)


def methods(random: Random, order: Order) -> Case:
    method = random.choice(pieces.METHODS if random.random() < 0.75 else pieces.ODD_METHODS)
    body = pieces.body(random, random.choice((0, 0, 10)))
    target = b"differential.example:80" if method == b"CONNECT" and random.random() < 0.5 else b"/m"
    if random.random() < 0.03:
        method, target = b"OPTIONS", b"*"
    return Case("methods", order, method, target, body=body, length=random.random() < 0.3)


def fields(random: Random, order: Order) -> Case:
    return Case("fields", order, random.choice((b"GET", b"POST")), b"/f", fields=pieces.odd_fields(random, 12))


def cookies(random: Random, order: Order) -> Case:
    sent = tuple(
        (pieces.cased(b"Cookie", random), random.choice(pieces.COOKIES)) for _ in range(random.choice((1, 2, 3, 8)))
    )
    set_cookies = tuple(
        ("set-cookie", f"c{n}=v{random.random()}; Path=/; {random.choice(('Secure', 'HttpOnly', 'SameSite=Lax'))}")
        for n in range(random.choice((0, 1, 2, 10)))
    )
    order = replace(order, fields=(("x-first", "1"), *set_cookies, ("x-last", "1"), *set_cookies[:1]))
    return Case("cookies", order, fields=sent + pieces.odd_fields(random, 2))


# A choice of names that proxies and servers treat apart, mixed with free ones.
ANSWERED = (
    "Set-Cookie", "set-cookie", "ETag", "Last-Modified", "Location", "Content-Location", "Content-Type", "Refresh",
    "Vary", "Cache-Control", "Expires", "Link", "WWW-Authenticate", "Accept-Ranges", "Content-Language",
    "Content-Encoding", "Content-Disposition", "Retry-After", "Age", "Alt-Svc", "Strict-Transport-Security",
    "X-Accel-Redirect", "X-Accel-Buffering", "X-Accel-Limit-Rate", "X-Accel-Expires", "X-Accel-Charset", "X-Sendfile",
    "Status", "Via", "Server", "Date", "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Upgrade",
    "Trailer", "TE", "Rabbitbal-Error", "Rabbitbal-Worker", "P3P", "X-Powered-By", "Server-Timing", "X_Under", "X-Pad",
    "MIME-Version",
)  # fmt: skip
ANSWERS = {
    "last-modified": ("Tue, 02 Jan 2024 03:04:05 GMT", "yesterday", ""),
    "location": ("/there", "http://elsewhere.example/?a=1#b", "//x/y", "", "caf\xe9"),
    "content-type": (
        "text/plain",
        "text/html;charset=utf-8",
        "text/html; charset=\xe9",
        "",
        "x/y; a=1; charset=UTF-8 ; b",
    ),
    "x-accel-redirect": ("/_rabbitbal/live", "/whoami"),
    "connection": ("X-Hop", "keep-alive, x-hop"),
    "date": ("Mon, 01 Jan 2024 00:00:00 GMT",),
    "x-accel-limit-rate": ("1",),
    "x-accel-buffering": ("yes", "no"),
    "upgrade": ("h2c", "websocket"),
    "content-encoding": ("gzip", "identity", "x-made-up"),
}


def answered_fields(random: Random, order: Order) -> Case:
    found: list[tuple[str, str]] = []
    for _ in range(random.randint(1, 10)):
        name = random.choice(ANSWERED)
        if random.random() < 0.5:
            name = pieces.odd_name(random).decode()
        values = ANSWERS.get(name.lower())
        value = random.choice(values) if values else pieces.odd_value(random).decode("latin-1")
        if found and random.random() < 0.2:
            name = found[-1][0]
        found.append((pieces.cased(name.encode(), random).decode(), value))
    if random.random() < 0.3:
        found.append(("x-hop", "of one hop"))
    order = replace(order, fields=tuple(found), status=random.choice((200, 200, 201, 302, 404, 500)))
    if random.random() < 0.5:
        order = order.declared()
    return Case("answered fields", order, random.choice((b"GET", b"GET", b"POST", b"HEAD")))


def targets(random: Random, order: Order) -> Case:
    return Case("targets", order, target=pieces.odd_target(random), fields=pieces.odd_fields(random, 1))


def bodies(random: Random, order: Order) -> Case:
    size = random.choice(SIZES if random.random() < 0.8 else EDGES)
    return _with_body(random, order, size)


def large_bodies(random: Random, order: Order) -> Case:
    return _with_body(random, order, random.choice((300 * KIB, 300 * KIB + 7, 1024 * KIB)))


def _with_body(random: Random, order: Order, size: int) -> Case:
    chunks: tuple[int, ...] = ()
    if random.random() < 0.5:
        step = random.choice((1, 7, 255, 4096, 70_000)) if size < 4096 else random.choice((999, 16 * KIB, 70_000, size))
        chunks = (step,) * min(size // step + 1, 400)
    # nginx gives up passing on a large body whose response has begun (docs/behavior.md).
    if random.random() < 0.4 and size <= 64 * KIB:
        order = replace(order, page="echo", fields=(("content-type", "a/b"),))
    case = Case("bodies", order, random.choice((b"POST", b"PUT", b"PATCH", b"DELETE", b"GET")), b"/b", chunks=chunks)
    if chunks and random.random() < 0.2:
        case = replace(case, extension=random.choice((b";a", b';a="b;c"', b";a=b")))
    if chunks and random.random() < 0.15:
        case = replace(case, trailer=((b"X-Trailer", b"1"), (b"X-Digest", b"abc")))
    return replace(case, body=pieces.body(random, size), length=not chunks)


RANGES = (
    b"bytes=0-0", b"bytes=0-", b"bytes=-5", b"bytes=10-20", b"bytes=5-1", b"bytes=99999999-", b"bytes=0-0,2-3",
    b"bytes=", b"lines=1-2", b"bytes= 1-2", b"bytes=a-b", b"bytes=0-99999999",
)  # fmt: skip
CONDITIONS: tuple[tuple[bytes, tuple[bytes, ...]], ...] = (
    (b"If-Match", (b'"v1"', b'"v2"', b"*", b'"v2", "v1"')),
    (b"If-None-Match", (b'"v1"', b'W/"v1"', b"*", b'"v0"', b"")),
    (b"If-Modified-Since", (b"Tue, 02 Jan 2024 03:04:05 GMT", b"Mon, 01 Jan 2024 00:00:00 GMT", b"never")),
    (b"If-Unmodified-Since", (b"Tue, 02 Jan 2024 03:04:05 GMT", b"never")),
    (b"If-Range", (b'"v1"', b'"v0"', b"Tue, 02 Jan 2024 03:04:05 GMT")),
    (b"Range", RANGES),
)


def conditionals(random: Random, order: Order) -> Case:
    sent: Fields = ()
    for name, values in random.sample(CONDITIONS, random.randint(1, 3)):
        sent += tuple((name, random.choice(values)) for _ in range(1 if random.random() < 0.95 else 2))
    order = replace(order, page="file", parts=(random.choice((26, 1000, 70_000)),))
    return Case("conditionals", order, random.choice((b"GET", b"GET", b"HEAD")), b"/file", fields=sent)


def encodings(random: Random, order: Order) -> Case:
    accepted = (b"gzip", b"gzip, deflate, br", b"identity", b"*", b"", b"gzip;q=0", b"br", b"GZIP")
    sent = tuple((b"Accept-Encoding", random.choice(accepted)) for _ in range(random.choice((0, 1, 2))))
    body, kind = random.choice(((b"", b""), (b"\x1f\x8b", b"gzip"), (b"abc", b"x-made-up"), (b"abc", b"identity")))
    sent += ((b"Content-Encoding", kind),) if kind else ()
    order = replace(order, page="encoded")
    return Case("encodings", order, b"POST" if body else random.choice((b"GET", b"HEAD")), fields=sent, body=body)


def statuses(random: Random, order: Order) -> Case:
    status = random.choice(
        (204, 304, 205, 200, 206, 301, 401, 407, 413, 429, 499, 502, 503, 504, random.randint(200, 599))
    )
    order = replace(order, status=status, parts=random.choice(((), (0,), (5,), (5, 5))))
    # Behind a head that may have no body uvicorn sends one all the same, where it was declared.
    if random.random() < 0.5 and not (status in (204, 304) and order.size):
        order = order.declared()
    return Case("statuses", order, random.choice((b"GET", b"HEAD", b"POST")))


def shapes(random: Random, order: Order) -> Case:
    parts = random.choice(
        ((), (0,), (0, 0, 0), (1,) * 100, (1, 0, 2), (64 * KIB,), (64 * KIB + 1,), (100, 64 * KIB - 1), (30_000,) * 10)
    )
    order = replace(order, parts=parts, pause=random.choice((0, 0, 0, 1, 7)) if len(parts) < 20 else 0)
    if random.random() < 0.5:
        order = order.declared()
    return Case("shapes", order, random.choice((b"GET", b"GET", b"POST", b"HEAD")))


FAILURES = ("before", "started", "middle", "end", "silent", "unfinished", "short", "long")


def failures(random: Random, order: Order) -> Case:
    fail = random.choice(FAILURES)
    # Some at once, and some when the head has left long ago.
    order = replace(order, parts=random.choice(((5,), (100, 100), (70_000, 70_000))), pause=random.choice((0, 0, 60)))
    order = order.declared({"short": 10, "long": -3}.get(fail, 0)) if fail in ("short", "long") else order
    if fail not in ("short", "long"):
        order = replace(order.declared() if random.random() < 0.5 else order, fail=fail)
    return Case("failures", order, random.choice((b"POST", b"GET")), tags=frozenset({fail}))


def early(random: Random, order: Order) -> Case:
    case = _with_body(random, order, random.choice((10, 5000, 70_000, 300 * KIB)))
    order = replace(order, read=random.choice(("none", "some")), page="plain", status=random.choice((200, 401, 413)))
    return replace(case, family="early", order=order.declared() if random.random() < 0.5 else order)


HOPS: Fields = (
    (b"Connection", b"keep-alive"), (b"Connection", b"close"), (b"Connection", b"X-Hop"),
    (b"Connection", b"close, x-hop"), (b"Connection", b"host, content-length"), (b"Connection", b"X-Mirrored, ,"),
    (b"Keep-Alive", b"timeout=5"), (b"TE", b"trailers"), (b"Trailer", b"X-Later"), (b"Proxy-Connection", b"keep-alive"),
    (b"Proxy-Authorization", b"Basic eA=="), (b"Proxy-Authenticate", b"Basic"), (b"Upgrade", b"h2c"),
    (b"Upgrade", b"made-up/1"), (b"X-Hop", b"1"), (b"Via", b"1.0 fred"), (b"Via", b"1.1 a, 1.1 b"),
    (b"X-Forwarded-For", b"1.2.3.4"), (b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Host", b"evil"),
    (b"X-Forwarded-Port", b"1"), (b"X-Forwarded-Prefix", b"/x"), (b"X-Forwarded-Server", b"s"),
    (b"X-Forwarded-Made-Up", b"x"), (b"Forwarded", b"for=1.2.3.4"), (b"X-Real-IP", b"1.2.3.4"),
    (b"Rabbitbal-Worker", b"w"), (b"Rabbitbal-Made-Up", b"w"), (b"Rabbitbal-Connection", b"x-kept"), (b"X-Kept", b"1"),
    (b"Expect", b"100-continue"), (b"Expect", b"something"), (b"Authorization", b"Basic eA=="),
    (b"Authorization", b"Bearer \xe9"), (b"Idempotency-Key", b"1"), (b"Content-Type", b"a/b"),
    (b"X-HTTP-Method-Override", b"DELETE"), (b"Max-Forwards", b"0"), (b"Proxy", b"http://evil"), (b"Server", b"x"),
    (b"Date", b"x"), (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (b"tracestate", b"a=b"), (b"Content-MD5", b"x"), (b"HTTP2-Settings", b"AAMAAABkAAQAAP__"),
    (b"Sec-WebSocket-Key", b"x"), (b"Sec-WebSocket-Version", b"13"),
)  # fmt: skip
HOSTS = (
    b"differential.example", b"DIFFERENTIAL.example", b"differential.example:8080", b"127.0.0.1", b"[::1]", b"[::1]:80",
    b"a_b", b"differential.example.", b"xn--caf-dma.example",
)  # fmt: skip


def hops(random: Random, order: Order) -> Case:
    sent = tuple(random.choice(HOPS) for _ in range(random.randint(1, 5)))
    body = b"body" if random.random() < 0.4 else b""
    version = b"1.0" if random.random() < 0.25 else b"1.1"
    name = random.choice(HOSTS) if random.random() < 0.95 else b""
    host = (b"Host", name) if version == b"1.1" or random.random() < 0.6 else None
    chunks = (3,) if body and version == b"1.1" and random.random() < 0.3 else ()
    return Case(
        "hops",
        order,
        b"POST" if body else b"GET",
        b"/h",
        version,
        host,
        sent + pieces.odd_fields(random, 1),
        body,
        chunks,
    )


NUMBERS: dict[Family, int] = {
    methods: 250, fields: 600, cookies: 120, answered_fields: 500, targets: 500, bodies: 260, large_bodies: 16,
    conditionals: 250, encodings: 80, statuses: 300, shapes: 180, failures: 160, early: 80, hops: 450,
}  # fmt: skip


def cases(seed: int) -> list[Case]:
    random, numbers = Random(seed), count(1)

    def made(family: Family, number: int) -> Iterator[Case]:
        for _ in range(number):
            key = f"{next(numbers):04}"
            size = random.choice((0, 5, 5, 1000))
            case = family(random, Order(key, parts=(size,) if size else ()))
            # After an early answer nginx closes the connection, or does not, as it has read the body to its end or not.
            if random.random() < 0.15 and family is not early:
                case = replace(case, follow=random.choice(("after", "after", "ahead")))
            yield case

    found = [case for family, number in NUMBERS.items() for case in made(family, number)]
    # The families mixed: neighbours meet on the same connections of the proxy.
    random.shuffle(found)
    return found
