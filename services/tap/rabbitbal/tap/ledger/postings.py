"""What a message means for the books. Pure: no database, and no memory of other messages."""

from dataclasses import dataclass
from typing import Any

from rabbitbal.tap.observation import Observation
from rabbitbal.tap.redaction import Redactor
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import content_length, first
from rabbitbal.wire.figures import EdgeFigures, decode_figures
from rabbitbal.wire.message import Request
from rabbitbal.wire.reasons import Reason
from rabbitbal.wire.topology import response_key

MOST_NAME = 64
"""Characters of an id, of a route, of a client's address."""
MOST_TEXT = 500
# A number in a database is 64 bits long, and an edge's clock may be wrong.
_MOST = 1 << 62
_SAID = frozenset({b"host", b"x-forwarded-for", b"user-agent", b"referer"})


@dataclass(slots=True)
class Debit:
    """A request that somebody owes an answer."""

    id: str
    at: int
    """When the tap read of it, in milliseconds since the Unix epoch."""
    sent: int | None
    """When it came, by the edge's clock."""
    edge: str
    route: str | None
    key: str | None = None
    client: str | None = None
    method: str | None = None
    target: str | None = None
    host: str | None = None
    agent: str | None = None
    referer: str | None = None
    request_bytes: int | None = None
    upgrade: str | None = None
    leg: str | None = None
    grouped: str | None = None
    part: str | None = None


@dataclass(slots=True)
class Credit:
    """An ending: a worker's response, or what an edge told. (`id`, `kind`, `attempt`, `sender`) names it."""

    id: str
    kind: str
    attempt: int
    sender: str
    at: int
    sent: int | None
    edge: str | None
    status: int | None
    reason: str | None
    worker: str | None
    pool: str | None
    bytes: int
    app_us: int | None
    total_us: int | None
    standing: str = ""

    @property
    def name(self) -> tuple[str, str, int, str]:
        return (self.id, self.kind, self.attempt, self.sender)


@dataclass(slots=True)
class Step:
    """What ends nothing: another attempt, a claim, a redelivery, the head of a streamed response."""

    id: str
    kind: str
    attempt: int
    sender: str
    at: int
    sent: int | None
    pool: str | None
    app_us: int | None = None

    @property
    def name(self) -> tuple[str, str, int, str]:
        return (self.id, self.kind, self.attempt, self.sender)


Posting = Debit | Credit | Step


def postings(seen: Observation, redactor: Redactor) -> list[Posting]:
    """Nothing for what is no business of the books."""
    envelope, at = seen.envelope, int(seen.at * 1000)
    if envelope.kind is Kind.REQUEST:
        found: list[Posting] = [_debit(envelope, seen, at, redactor)]
        if envelope.attempt > 1:
            found.append(_step(envelope, "attempt", at))
        return found
    if envelope.kind is Kind.RESPONSE:
        return [_step(envelope, "head", at)] if envelope.more else [_response(envelope, seen, at)]
    if envelope.kind is Kind.ENDED:
        # A request that came to no pool is brought along by its ending. One without a route was refused before it had
        # one, perhaps because nothing in it could be read: this message is all there ever is of it.
        alone = seen.request is not None or envelope.route is None
        return [*([_debit(envelope, seen, at, redactor)] if alone else []), _ended(envelope, at)]
    if envelope.kind in (Kind.CLAIM, Kind.REDELIVERED):
        return [_step(envelope, envelope.kind.value, at)]
    return []


def edge_figures(seen: Observation) -> EdgeFigures | None:
    """None for a worker's, and for nonsense: who decodes the figures for the page says so."""
    try:
        found = decode_figures(seen.payload)
    except WireError:
        return None
    return found if isinstance(found, EdgeFigures) else None


def _debit(envelope: Envelope, seen: Observation, at: int, redactor: Redactor) -> Debit:
    sent = envelope.sent
    if sent is not None and envelope.kind is Kind.ENDED:
        sent -= (envelope.duration or 0) // 1000
    debit = Debit(_name(envelope.correlation_id), at, _number(sent), _name(envelope.app_id), _optional(envelope.route))
    debit.leg, debit.grouped = envelope.leg, _optional(envelope.group)
    debit.part, debit.upgrade = _optional(envelope.partition), _optional(envelope.upgrade)
    if envelope.kind is Kind.REQUEST:
        debit.key = _optional(seen.key.removeprefix("request."))
    if seen.request is not None:
        _describe(debit, seen.request, redactor, more=bool(envelope.more))
    return debit


def _describe(debit: Debit, request: Request, redactor: Redactor, *, more: bool) -> None:
    # What the access log hides stays hidden here.
    said = [field for field in request.fields if field[0].lower() in _SAID]
    fields = redactor.fields(said)
    debit.method = request.method[:MOST_NAME]
    debit.target = _text(redactor.target(request.target))
    debit.host = _text(first(fields, b"host"))
    debit.client = _optional(_text(first(fields, b"x-forwarded-for")))
    debit.agent = _text(first(fields, b"user-agent"))
    debit.referer = _text(first(fields, b"referer"))
    declared = content_length(request.fields) if more else len(request.body)
    debit.request_bytes = None if declared is None else _number(declared)


def _response(envelope: Envelope, seen: Observation, at: int) -> Credit:
    response, reason = seen.response, envelope.reason
    if response is None and reason is None:
        # What is no HTTP is an answer all the same: the edge ends the request by it.
        reason = Reason.BAD_RESPONSE
    return _credit(
        envelope,
        at,
        edge=_waiting(seen.key),
        status=None if response is None else response.status,
        reason=reason,
        worker=_name(envelope.app_id),
        bytes=0 if response is None else len(response.body),
        app_us=_number(envelope.duration),
    )


def _ended(envelope: Envelope, at: int) -> Credit:
    return _credit(
        envelope,
        at,
        edge=_name(envelope.app_id),
        status=_number(envelope.status),
        reason=envelope.reason,
        worker=None,
        bytes=_number(envelope.size) or 0,
        total_us=_number(envelope.duration),
    )


def _credit(envelope: Envelope, at: int, *, reason: Reason | None, **told: Any) -> Credit:
    return Credit(
        id=_name(envelope.correlation_id),
        kind=envelope.kind.value,
        attempt=envelope.attempt,
        sender=_name(envelope.app_id),
        at=at,
        sent=_number(envelope.sent),
        reason=None if reason is None else reason.value,
        pool=_optional(envelope.pool),
        **{"app_us": None, "total_us": None, **told},
    )


def _step(envelope: Envelope, kind: str, at: int) -> Step:
    return Step(
        _name(envelope.correlation_id),
        kind,
        envelope.attempt,
        _name(envelope.app_id),
        at,
        _number(envelope.sent),
        _optional(envelope.pool),
        _number(envelope.duration),
    )


def _waiting(key: str) -> str | None:
    """The edge that a response was sent to."""
    edge = key.removeprefix(response_key(""))
    return _name(edge) if edge and edge != key else None


def _name(text: str) -> str:
    return _clean(text[:MOST_NAME])


def _optional(text: str | None) -> str | None:
    return _name(text) if text else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else _clean(value[:MOST_TEXT].decode("utf-8", "replace"))


def _clean(text: str) -> str:
    # PostgreSQL takes no such character, and a lone surrogate is no UTF-8.
    return text.replace("\0", "�").encode("utf-8", "replace").decode()


def _number(value: int | None) -> int | None:
    return None if value is None else min(value, _MOST)
