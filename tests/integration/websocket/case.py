"""A case of the conformance list: what the client sends, what a good server does about it, and what was seen."""

import hashlib
from dataclasses import dataclass, field

from integration.websocket.frames import BINARY, NAMES, TEXT, Frame


@dataclass(frozen=True)
class Packed:
    """A message to be sent compressed, in fragments of ``fragment`` bytes."""

    message: Frame
    fragment: int = 1 << 30


@dataclass(frozen=True)
class Await:
    """Send no more before so many messages came."""

    messages: int


Step = Frame | bytes | Packed | Await
"""Bytes go out as they are."""


@dataclass(frozen=True)
class Case:
    """``closes``: with which codes the server may close by itself; empty: the client closes, with 1000, when it has
    every message that it expects. ``statuses``: how the handshake may end."""

    name: str
    what: str
    steps: tuple[Step, ...] = ()
    expected: tuple[str, ...] = ()
    closes: frozenset[int] = frozenset()
    path: str = "/echo"
    fields: tuple[tuple[str, str], ...] = ()
    chop: int = 0
    """Bytes in each write; 0: each step is one."""
    statuses: frozenset[int] = frozenset({101})
    selected: dict[str, str] = field(default_factory=dict)
    """Fields that the handshake's answer must have; an empty value: must not."""
    head: str = ""
    """The handshake's request, where the usual one will not do. Lines end in LF here."""
    reason: str = ""
    """Of the server's close frame, where it matters."""
    may_miss: bool = False
    """A server that fails the connection may do so before it has answered what came earlier."""

    @property
    def section(self) -> str:
        return self.name.split(".")[0]


@dataclass
class Transcript:
    """What came back: the same in words, so that two can be compared and shown."""

    status: int = 0
    selected: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    code: int | None = None
    """Of the server's close frame: 1005 when it has none, None when there is no such frame."""
    reason: str = ""
    end: str = "open"
    """How the connection ended: closed, reset, or open when the suite lost patience."""
    fault: str = ""

    def failure(self, case: Case) -> str:
        """Why the server did not pass; empty when it did."""
        if self.fault:
            return self.fault
        if self.status not in case.statuses:
            return f"status {self.status}"
        for name, value in case.selected.items():
            if self.selected.get(name, "") != value:
                return f"{name}: {self.selected.get(name, '')!r} instead of {value!r}"
        if self.status != 101:
            return ""
        wanted = list(case.expected)
        if self.messages != wanted and not (case.may_miss and self.messages == wanted[: len(self.messages)]):
            return f"messages {brief(self.messages)} instead of {brief(wanted)}"
        if self.code not in (case.closes or {1000}):
            return f"{self.close} instead of {' or '.join(map(str, sorted(case.closes or {1000})))}"
        if case.reason and self.reason != case.reason:
            return f"reason {self.reason!r} instead of {case.reason!r}"
        return "the connection stayed open" if self.end == "open" else ""

    @property
    def close(self) -> str:
        return "no close" if self.code is None else f"close {self.code}"

    def __str__(self) -> str:
        """Closed or reset is left out, as the two differ by what was still under way; reasons are anybody's words."""
        if self.status != 101:
            return f"status {self.status}"
        return f"{brief(self.messages)}, {self.close}{', open' if self.end == 'open' else ''}"


def shown(opcode: int, payload: bytes) -> str:
    """A message in words: opcode, size, and the start of its digest."""
    return f"{NAMES[opcode]} of {len(payload)} #{hashlib.sha256(payload).hexdigest()[:8]}"


def echoed(*frames: Frame) -> tuple[str, ...]:
    return tuple(shown(frame.opcode, frame.payload) for frame in frames)


def brief(messages: list[str]) -> str:
    if len(messages) > 3:
        return f"[{messages[0]}, … {len(messages)} in all … {messages[-1]}]"
    return f"[{', '.join(messages)}]"


def words(payload: str | bytes) -> tuple[str, ...]:
    return (shown(TEXT, payload.encode() if isinstance(payload, str) else payload),)


def data(payload: bytes) -> tuple[str, ...]:
    return (shown(BINARY, payload),)
