"""The conformance list, in the sections and by the numbers of Autobahn's: framing, pings, reserved bits and opcodes,
fragments, UTF-8, closing, sizes. Compression and handshakes are in cases_more.py.

Autobahn's own numbers are kept where a case is the same; a letter at the end marks one that is not in Autobahn.
"""

from collections.abc import Iterable

from integration.websocket.case import Await, Case, Step, echoed
from integration.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    Frame,
    binary,
    close,
    more,
    pieces,
    ping,
    pong,
    text,
)

PROTOCOL_ERROR = frozenset({1002})
BAD_TEXT = frozenset({1007})
HELLO = text("Hello, world!")
WORLD = echoed(HELLO)


def fails(
    name: str, what: str, *steps: Step, expected: tuple[str, ...] = (), closes: frozenset[int] = PROTOCOL_ERROR
) -> Case:
    """The server must fail the connection (RFC 6455 §7.1.7)."""
    return Case(name, what, steps, expected, closes, may_miss=True)


def framing() -> Iterable[Case]:
    sizes = (0, 125, 126, 127, 128, 65535, 65536)
    for kind, frame in ((1, text(b"*" * 65536)), (2, binary(b"\xfe" * 65536))):
        name = ("text", "binary")[kind - 1]
        for number, size in enumerate(sizes, 1):
            message = Frame(frame.opcode, frame.payload[:size])
            yield Case(f"1.{kind}.{number}", f"{name} of {size} bytes", (message,), echoed(message))
        for chop in (1, 7, 997):
            message = Frame(frame.opcode, frame.payload[: 65536 if chop > 100 else 300])
            what = f"{name} of {len(message.payload)} bytes in writes of {chop}"
            yield Case(f"1.{kind}.8.{chop}", what, (message,), echoed(message), chop=chop)
    both = (HELLO, binary(b"\0"), text(""), HELLO)
    yield Case("1.3.1a", "four messages in one write", (b"".join(f.encode() for f in both),), echoed(*both))


def pings() -> Iterable[Case]:
    def answers(*payloads: bytes) -> tuple[str, ...]:
        return echoed(*map(pong, payloads))

    full = bytes(range(0x80, 0xFD))
    yield Case("2.1", "ping without payload", (ping(),), answers(b""))
    yield Case("2.2", "ping with text", (ping(b"Hello"),), answers(b"Hello"))
    yield Case("2.3", "ping with bytes that are no UTF-8", (ping(b"\x00\xff\xfe\xfd"),), answers(b"\x00\xff\xfe\xfd"))
    yield Case("2.4", "ping of 125 bytes", (ping(full),), answers(full))
    yield fails("2.5", "ping of 126 bytes", ping(b"*" * 126))
    yield Case("2.6", "ping of 125 bytes, in writes of one", (ping(full),), answers(full), chop=1)
    yield Case("2.7", "pong that nobody asked for", (pong(), HELLO), WORLD)
    yield Case("2.8", "pong with payload that nobody asked for", (pong(b"unasked"), HELLO), WORLD)
    yield Case("2.9", "pong that nobody asked for, then a ping", (pong(b"unasked"), ping(b"p")), answers(b"p"))
    ten = [b"payload %d" % number for number in range(10)]
    yield Case("2.10", "ten pings", tuple(map(ping, ten)), answers(*ten))
    yield Case("2.11", "ten pings, in writes of one byte", tuple(map(ping, ten)), answers(*ten), chop=1)


def reserved() -> Iterable[Case]:
    yield fails("3.1", "RSV=1 without extension", Frame(TEXT, b"Hello", rsv=1))
    for rsv in range(2, 7):
        wrong = Frame((TEXT, BINARY)[rsv == 6], b"Hello", rsv=rsv)
        yield fails(f"3.{rsv}", f"a message, then one with RSV={rsv}", HELLO, Await(1), wrong, ping(), expected=WORLD)
    yield fails("3.7", "a close with RSV=7", Frame(CLOSE, b"\x03\xe8", rsv=7))
    yield fails("3.8a", "a ping with RSV=4", Frame(PING, b"", rsv=4))
    yield fails("3.9a", "a frame that is not masked", Frame(TEXT, b"Hello", masked=False))
    yield fails("3.10a", "a message, then a ping that is not masked", HELLO, Await(1),
                Frame(PING, b"", masked=False), expected=WORLD)  # fmt: skip
    for section, opcodes in ((1, range(3, 8)), (2, range(11, 16))):
        for number, opcode in enumerate(opcodes, 1):
            payload = b"" if number == 1 else b"reserved"
            wrong = Frame(opcode, payload)
            before: tuple[Step, ...] = (HELLO, Await(1)) if number > 2 else ()
            expected = WORLD if before else ()
            yield fails(
                f"4.{section}.{number}", f"opcode {opcode}, {len(payload)} bytes", *before, wrong, ping(),
                expected=expected,
            )  # fmt: skip


def fragments() -> Iterable[Case]:
    first, second = text("fragment1", fin=False), more("fragment2", fin=True)
    whole = echoed(text("fragment1fragment2"))
    inside = echoed(pong(b"inside"))
    yield fails("5.1", "a ping in two fragments", Frame(PING, b"fr", fin=False), more("ag", fin=True))
    yield fails("5.2", "a pong in two fragments", Frame(10, b"fr", fin=False), more("ag", fin=True))
    yield fails("5.2a", "a close in two fragments", Frame(CLOSE, b"\x03\xe8", fin=False), more("", fin=True))
    yield Case("5.3", "text in two fragments", (first, second), whole)
    yield Case("5.4", "text in two fragments, in one write", (first.encode() + second.encode(),), whole)
    yield Case("5.5", "text in two fragments, in writes of one byte", (first, second), whole, chop=1)
    yield Case("5.6", "a ping between two fragments", (first, ping(b"inside"), second), inside + whole)
    yield Case("5.7", "the same in one write", (b"".join(f.encode() for f in (first, ping(b"inside"), second)),),
               inside + whole)  # fmt: skip
    yield Case("5.8", "the same in writes of one byte", (first, ping(b"inside"), second), inside + whole, chop=1)
    orphan = more("nothing to continue", fin=True)
    yield fails("5.9", "a continuation of nothing, then a message", orphan, HELLO)
    yield fails("5.10", "the same in one write", orphan.encode() + HELLO.encode())
    yield fails("5.11", "the same in writes of one byte", *(bytes([b]) for b in orphan.encode()), HELLO)
    open_orphan = more("nothing to continue")
    yield fails("5.12", "a continuation of nothing without an end", open_orphan, HELLO)
    yield fails("5.13", "the same in one write", open_orphan.encode() + HELLO.encode())
    yield fails("5.15", "a message, then a continuation of nothing", first, second, Await(1), orphan, HELLO,
                expected=whole)  # fmt: skip
    yield fails("5.16", "continuations of nothing, twice", open_orphan, HELLO, open_orphan)
    yield fails("5.18", "a message that begins inside another", first, text("fragment2"))
    five = [text("1", fin=False), *(more(str(n), fin=n == 5) for n in range(2, 6))]
    mixed: list[Step] = []
    for number, frame in enumerate(five):
        mixed += [frame, ping(b"%d" % number)] if number < 4 else [frame]
    pongs = echoed(*(pong(b"%d" % number) for number in range(4)))
    yield Case("5.19", "five fragments with pings between them", tuple(mixed), pongs + echoed(text("12345")))
    yield Case("5.20", "the same, with a wait in the middle", (*mixed[:4], Await(2), *mixed[4:]),
               pongs + echoed(text("12345")))  # fmt: skip
    empty = (text("", fin=False), more(""), more("", fin=True))
    yield Case("5.21a", "three fragments without a byte", empty, echoed(text("")))
    yield Case("5.22a", "an empty fragment at each end", (text("", fin=False), more("x"), more("", fin=True)),
               echoed(text("x")))  # fmt: skip


VALID = {
    "greek": "κόσμε", "two bytes": "\u0080\u07ff", "three bytes": "\u0800\uffff", "four bytes": "\U00010000\U0010ffff",
    "around the surrogates": "\ud7ff\ue000", "replacement": "\ufffd", "mark in front": "\ufeffx", "zero": "a\0b",
    "noncharacters": "\ufdd0\ufffe\U0001fffe\U0010ffff", "no normal form": "e\u0301\u00e9", "controls": "\x01\x7f\x9f",
}  # fmt: skip
INVALID = {
    "continuation alone": b"\x80", "continuations": b"\xbf\x80", "first bytes of two": b"\xc0 \xc1 \xdf ",
    "first byte of three": b"\xe0 ", "first byte of four": b"\xf0 ", "of five": b"\xf8\x88\x80\x80\x80",
    "of six": b"\xfc\x84\x80\x80\x80\x80", "fe": b"\xfe", "ff": b"\xff", "last byte missing, two": b"\xc2",
    "last byte missing, three": b"\xe2\x82", "last byte missing, four": b"\xf0\x9d\x84", "overlong slash": b"\xc0\xaf",
    "overlong slash in three": b"\xe0\x80\xaf", "overlong slash in four": b"\xf0\x80\x80\xaf",
    "overlong zero": b"\xc0\x80", "highest overlong": b"\xf0\x8f\xbf\xbf", "surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf", "surrogate pair": b"\xed\xa0\x80\xed\xb0\x80", "beyond": b"\xf4\x90\x80\x80",
    "far beyond": b"\xf7\xbf\xbf\xbf", "greek, then a surrogate": b"\xce\xba\xed\xa0\x80edited",
}  # fmt: skip


def utf8() -> Iterable[Case]:
    for number, (what, good) in enumerate(VALID.items(), 1):
        message = text(good)
        yield Case(f"6.2.{number}", f"valid text: {what}", (message,), echoed(message))
        yield Case(f"6.2.{number}b", f"valid text, each byte a fragment: {what}", tuple(pieces(message, 1)),
                   echoed(message))  # fmt: skip
    yield Case("6.1.2", "text of empty fragments", (text("", fin=False), more("", fin=True)), echoed(text("")))
    for number, (what, bad) in enumerate(INVALID.items(), 1):
        yield fails(f"6.3.{number}", f"invalid text: {what}", text(bad), closes=BAD_TEXT)
        yield fails(f"6.3.{number}b", f"invalid text, each byte a fragment: {what}", *pieces(text(b"a" + bad), 1),
                    closes=BAD_TEXT)  # fmt: skip
    start, bad, rest = b"\xce\xba\xe1\xbd\xb9", b"\xf4\x90\x80\x80", b"edited"
    yield fails("6.4.1", "invalid in the second of three fragments; the third never comes", text(start, fin=False),
                Frame(CONTINUATION, bad, fin=False), closes=BAD_TEXT)  # fmt: skip
    unfinished = text(start + bad + rest).encode()
    yield fails("6.4.3", "invalid in the middle of a frame whose end never comes", unfinished[: -len(rest)],
                closes=BAD_TEXT)  # fmt: skip
    yield fails("6.4.5a", "a message, then an invalid one", HELLO, Await(1), text(bad), expected=WORLD,
                closes=BAD_TEXT)  # fmt: skip
    yield Case("6.5.1a", "what is no text is good as binary", (binary(b"\xff\xfe\xed\xa0\x80"),),
               echoed(binary(b"\xff\xfe\xed\xa0\x80")))  # fmt: skip


def closing() -> Iterable[Case]:
    def answered(name: str, what: str, *steps: Step, code: int = 1000, expected: tuple[str, ...] = ()) -> Case:
        """The server answers a close by its code, or by 1000."""
        return Case(name, what, steps, expected, frozenset({code, 1000}), may_miss=True)

    yield answered("7.1.1", "a message, then a close", HELLO, Await(1), close(), expected=WORLD)
    yield answered("7.1.2", "two closes", close(), close())
    yield answered("7.1.3", "a ping after the close", close(), ping())
    yield answered("7.1.4", "a message after the close", close(), HELLO)
    yield answered("7.1.5", "a close between two fragments", text("fr", fin=False), close(), more("ag", fin=True))
    # Autobahn sends a ping behind this close; whether the close then comes back is a matter of luck with any server.
    yield answered("7.1.6a", "256 KiB and a close", text(b"*" * 262_144), close(),
                   expected=echoed(text(b"*" * 262_144)))  # fmt: skip
    yield answered("7.3.1", "a close without a code", close(None), code=1005)
    yield fails("7.3.2", "a close of one byte", Frame(CLOSE, b"a"))
    yield answered("7.3.3", "a close with a code alone", close(1000))
    yield answered("7.3.4", "a close with a reason", close(1000, b"Hello, world!"))
    yield answered("7.3.5", "a reason of 123 bytes", close(1000, b"*" * 123))
    yield fails("7.3.6", "a reason of 124 bytes", close(1000, b"*" * 124))
    yield fails("7.5.1", "a reason that is no UTF-8", close(1000, b"\xce\xba\xed\xa0\x80"),
                closes=PROTOCOL_ERROR | BAD_TEXT)  # fmt: skip
    valid = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for number, code in enumerate(valid, 1):
        yield answered(f"7.7.{number}", f"code {code}", close(code), code=code)
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999), 1):
        yield fails(f"7.9.{number}", f"code {code}", close(code))
    for number, code in enumerate((5000, 65535), 1):
        yield fails(f"7.13.{number}", f"code {code}", close(code))


def sizes() -> Iterable[Case]:
    kib = 1024
    for kind, opcode in ((1, TEXT), (2, BINARY)):
        name = ("text", "binary")[kind - 1]
        for number, size in enumerate((64, 256, 1024, 4096), 1):
            message = Frame(opcode, b"*" * (size * kib))
            yield Case(f"9.{kind}.{number}", f"{name} of {size} KiB", (message,), echoed(message))
        whole = Frame(opcode, b"*" * (1024 * kib))
        for number, size in enumerate((256, 4 * kib, 64 * kib), 1):
            yield Case(f"9.{kind + 2}.{number}", f"{name} of 1 MiB in fragments of {size}", tuple(pieces(whole, size)),
                       echoed(whole))  # fmt: skip
        for number, chop in enumerate((256, 2048), 1):
            yield Case(f"9.{kind + 4}.{number}", f"{name} of 1 MiB in writes of {chop}", (whole,), echoed(whole),
                       chop=chop)  # fmt: skip
        for number, size in enumerate((0, 64, 1024, 16 * kib), 1):
            many = [Frame(opcode, b"*" * size)] * 200
            yield Case(f"9.{kind + 6}.{number}", f"200 {name} messages of {size} bytes", tuple(many), echoed(*many))
    turns: list[Step] = []
    for number in range(1, 51):
        turns += [text(f"turn {number}"), Await(number)]
    yield Case("9.9.1a", "50 messages, each after the answer to the last", tuple(turns),
               echoed(*(frame for frame in turns if isinstance(frame, Frame))))  # fmt: skip
    long = text(b"*" * 65536)
    yield Case("10.1.1", "64 KiB in fragments of 1300", tuple(pieces(long, 1300)), echoed(long))


CASES = [
    *framing(),
    *pings(),
    *reserved(),
    *fragments(),
    *utf8(),
    *closing(),
    *sizes(),
]
