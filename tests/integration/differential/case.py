"""One request of the differential test, to the byte, and what its application is ordered to do with it."""

import json
from dataclasses import asdict, dataclass, field, replace

Field = tuple[bytes, bytes]
Fields = tuple[Field, ...]

HOST = (b"Host", b"differential.example")
FOLLOW = b"GET /follow HTTP/1.1\r\nHost: differential.example\r\nX-Mirror: %s\r\n\r\n"
FOLLOWED = 299


@dataclass(frozen=True)
class Order:
    """What `apps/mirror.py` does. Text is latin-1."""

    key: str
    page: str = "plain"
    """`plain`; `file`: a representation with validators; `encoded`: compressed for those who take it; `echo`."""
    read: str = "all"
    """How much of the request's body is read before the response: `all`, `some`, `none`."""
    status: int = 200
    fields: tuple[tuple[str, str], ...] = ()
    parts: tuple[int, ...] = (5,)
    """Sizes of the messages with body; the last message is one of its own and empty."""
    pause: int = 0
    """Milliseconds between the parts."""
    fail: str = ""
    """Raise `before` the response, when it has `started`, in the `middle`, at the `end` behind it; or `silent`:
    return without a response; `unfinished`: return without its end."""

    @property
    def size(self) -> int:
        return sum(self.parts)

    def declared(self, delta: int = 0) -> "Order":
        """With a Content-Length that is true, or wrong by ``delta``."""
        return replace(self, fields=(*self.fields, ("content-length", str(self.size + delta))))

    def header(self) -> Field:
        return b"X-Mirror", json.dumps(asdict(self), separators=(",", ":")).encode()


@dataclass(frozen=True)
class Case:
    """A request on a connection of its own."""

    family: str
    order: Order
    method: bytes = b"GET"
    target: bytes = b"/"
    version: bytes = b"1.1"
    host: Field | None = HOST
    fields: Fields = ()
    body: bytes = b""
    chunks: tuple[int, ...] = ()
    """Sizes of the chunks of a chunked body; empty: Content-Length, if there is a body or ``length``."""
    extension: bytes = b""
    trailer: Fields = ()
    length: bool = False
    follow: str = ""
    """A second request on the same connection: `after` the response, or `ahead` of it."""
    tags: frozenset[str] = field(default_factory=frozenset)

    @property
    def key(self) -> str:
        return self.order.key

    def values(self, name: bytes) -> list[bytes]:
        return [value.strip(b" \t") for other, value in self.fields if other.lower() == name]

    def head(self) -> bytes:
        fields = [*((self.host,) if self.host else ()), *self.fields, self.order.header()]
        if self.chunks:
            fields.append((b"Transfer-Encoding", b"chunked"))
        elif self.body or self.length:
            fields.append((b"Content-Length", b"%d" % len(self.body)))
        lines = [b"%s %s HTTP/%s" % (self.method, self.target, self.version)]
        lines += [b"%s: %s" % pair for pair in fields]
        return b"\r\n".join([*lines, b"", b""])

    def message(self) -> bytes:
        return self.head() + self._framed() + (self.second() if self.follow == "ahead" else b"")

    def second(self) -> bytes:
        return FOLLOW % Order(f"{self.key}-follow", status=FOLLOWED, parts=(3,)).declared().header()[1]

    def _framed(self) -> bytes:
        if not self.chunks:
            return self.body
        parts, rest = [], self.body
        for size in self.chunks:
            if rest:
                part, rest = rest[:size], rest[size:]
                parts.append(b"%x%s\r\n%s\r\n" % (len(part), self.extension, part))
        if rest:
            parts.append(b"%x\r\n%s\r\n" % (len(rest), rest))
        trailer = b"".join(b"%s: %s\r\n" % pair for pair in self.trailer)
        return b"".join([*parts, b"0\r\n", trailer, b"\r\n"])
