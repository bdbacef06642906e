"""W3C Trace Context at the edge: which traces it takes up, what the application and the tap are given."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rabbitbal.edge.settings import Settings
from rabbitbal.edge.ticket import Order
from rabbitbal.edge.traces import NO_SPAN, copied, taken_up
from rabbitbal.runtime.settings import SettingsError, read
from rabbitbal.wire.fields import Fields, values
from tests.edge_deployment import LIMITS, Deployment, deployed, until

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{CALLER}-01"


@pytest.fixture
async def edge() -> AsyncIterator[Deployment]:
    async with deployed(replace(LIMITS, trace=True)) as deployment:
        yield deployment


def sent(*given: str, state: str | None = "a=1") -> Fields:
    fields = [(b"Host", b"a"), *((b"Traceparent", text.encode()) for text in given)]
    return fields + ([(b"tracestate", state.encode())] if state is not None else [])


def parts(traceparent: str) -> list[str]:
    found = traceparent.split("-")
    assert [len(part) for part in found] == [2, 32, 16, 2]
    return found


def test_a_trace_is_taken_up_with_a_span_of_our_own() -> None:
    """Its id, its flags and its state stay; who sent the request is the tap's to know."""
    fields, trace = taken_up(sent(GIVEN), 0.0)
    assert list(values(fields, b"traceparent")) == [trace.traceparent.encode()]
    version, trace_id, span_id, flags = parts(trace.traceparent)
    assert (version, trace_id, flags, trace.caller) == ("00", TRACE, "01", CALLER)
    assert span_id not in (CALLER, NO_SPAN)
    assert list(values(fields, b"tracestate")) == [b"a=1"]


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (f"00-{TRACE}-{CALLER}-00", "00"),
        (f"00-{TRACE}-{CALLER}-03", "03"),
        (f"00-{TRACE}-{CALLER}-ff", "03"),
        (f"cc-{TRACE}-{CALLER}-01", "01"),
        (f"cc-{TRACE}-{CALLER}-01-what-the-future-brings", "01"),
        (f"  {GIVEN} ", "01"),
    ],
)
def test_versions_and_flags_are_read_as_the_specification_says(given: str, flags: str) -> None:
    """A later version is read as far as it is known and goes on as 00; flags that nobody knows are set to zero."""
    _, trace = taken_up(sent(given), 1.0)
    assert (parts(trace.traceparent)[:2], parts(trace.traceparent)[3]) == (["00", TRACE], flags)


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("",),
        ("rubbish",),
        (GIVEN.upper(),),
        (GIVEN + "-more",),
        (GIVEN + "0",),
        (f"ff-{TRACE}-{CALLER}-01",),
        (f"cc-{TRACE}-{CALLER}-01.more",),
        (f"00-{'0' * 32}-{CALLER}-01",),
        (f"00-{TRACE}-{NO_SPAN}-01",),
        (f"00-{TRACE}-{CALLER}-0x",),
        (f"00-{TRACE}-{CALLER}",),
        (GIVEN, GIVEN),
        ("x" * 20_000,),
    ],
)
def test_what_is_not_valid_begins_a_new_trace(given: tuple[str, ...]) -> None:
    """Its state belonged to the old one, and goes with it."""
    fields, trace = taken_up(sent(*given), 1.0)
    assert list(values(fields, b"traceparent")) == [trace.traceparent.encode()]
    assert list(values(fields, b"tracestate")) == []
    version, trace_id, span_id, flags = parts(trace.traceparent)
    assert (version, flags, trace.caller) == ("00", "01", NO_SPAN)
    assert trace_id not in (TRACE, "0" * 32)
    assert span_id != NO_SPAN


def test_a_new_trace_is_sampled_by_chance() -> None:
    """The share that was asked for, within what chance allows."""
    flags = [taken_up([], 0.25)[1].traceparent[-2:] for _ in range(2000)]
    assert 350 < flags.count("01") < 650
    assert {flags.count("01") + flags.count("00")} == {2000}


def test_a_copy_has_a_span_of_its_own() -> None:
    """In its envelope and in its message, and nothing else of it changes."""
    fields, trace = taken_up(sent(GIVEN), 1.0)
    payload = b"GET /" + CALLER.encode() + b" HTTP/1.1\r\n" + b"".join(b"%s: %s\r\n" % field for field in fields)
    order = Order(
        payload, "GET", "default", True, 1.0, 1.0, 1.0, traceparent=trace.traceparent, caller_span=trace.caller
    )
    copy = copied(order)
    assert copy.traceparent is not None
    assert copy.traceparent != trace.traceparent
    assert (parts(copy.traceparent)[1], copy.caller_span) == (TRACE, CALLER)
    assert copy.payload == payload.replace(trace.traceparent.encode(), copy.traceparent.encode())
    assert copied(replace(order, caller_span=None)) == replace(order, caller_span=None)


async def test_the_application_and_the_envelope_have_the_same_context(edge: Deployment) -> None:
    """And the envelope has the caller's span besides."""
    await edge.ask(b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: " + GIVEN.encode() + b"\r\n\r\n")
    (envelope,), (request,) = edge.backend.envelopes, edge.backend.requests
    assert [(envelope.traceparent or "").encode()] == list(values(request.fields, b"traceparent"))
    assert (parts(envelope.traceparent or "")[1], envelope.caller_span) == (TRACE, CALLER)


async def test_an_ending_that_the_edge_tells_has_the_context_too(edge: Deployment) -> None:
    """The tap may have seen no request."""
    edge.backend.answer = lambda request: None
    conversation = await edge.connect()
    conversation.send(b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: " + GIVEN.encode() + b"\r\n\r\n")
    await until(lambda: edge.backend.envelopes)
    conversation.hang_up()
    await until(lambda: edge.backend.ended)
    (envelope,), (ended,) = edge.backend.envelopes, edge.backend.ended
    assert (ended.traceparent, ended.caller_span) == (envelope.traceparent, CALLER)


@pytest.mark.parametrize(("mode", "told"), [("first", 0), ("all", 1), ("shadow", 0)])
async def test_each_copy_has_a_span_of_its_own(tmp_path: Path, mode: str, told: int) -> None:
    """In one trace below one caller; an answer that was gathered has a context of its own besides."""
    table = tmp_path / "routes.yaml"
    table.write_text(f"version: 1\nroutes: [{{ name: default, mode: {mode}, to: [north, south] }}]\n")
    async with deployed(replace(LIMITS, trace=True, routes=table)) as edge:
        await edge.ask(b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: " + GIVEN.encode() + b"\r\n\r\n")
        await until(lambda: len(edge.backend.envelopes) == 2)
        envelopes = edge.backend.envelopes + [ended for ended in edge.backend.ended if ended.reason is None]
        assert len(envelopes) == 2 + told
        contexts = [parts(envelope.traceparent or "") for envelope in envelopes]
        assert {(context[1], context[3]) for context in contexts} == {(TRACE, "01")}
        assert len({context[2] for context in contexts}) == len(envelopes)
        assert {envelope.caller_span for envelope in envelopes} == {CALLER}
        for envelope, request in zip(edge.backend.envelopes, edge.backend.requests, strict=True):
            assert [(envelope.traceparent or "").encode()] == list(values(request.fields, b"traceparent"))


async def test_an_edge_that_takes_no_part_says_so() -> None:
    """The context goes through as it came, and no span of the tap's may take its id."""
    async with deployed(LIMITS) as edge:
        await edge.ask(b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: " + GIVEN.encode() + b"\r\n\r\n")
    (envelope,) = edge.backend.envelopes
    assert (envelope.traceparent, envelope.caller_span) == (GIVEN, None)


@pytest.mark.parametrize(("variable", "text"), [("RABBITBAL_TRACE", "some"), ("RABBITBAL_TRACE_SAMPLE", "1.5")])
def test_a_bad_setting_names_its_variable(variable: str, text: str) -> None:
    """One line for the operator."""
    with pytest.raises(SettingsError, match=variable):
        read(Settings, {variable: text})
