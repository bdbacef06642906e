"""All answers in one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from email import message_from_bytes
from email.policy import HTTP

import pytest

from rabbitbal.edge import publishing
from rabbitbal.edge.copies.multipart import Part, combined, failed, message_of
from rabbitbal.edge.ticket import Ending
from rabbitbal.routes.policy import Mode, Policy
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.message import MAX_HEAD, Response, encode_response
from rabbitbal.wire.reasons import Reason
from tests.copies_bench import BAD, CopiesBench
from tests.edge_bench import OK, ORDER, PAYLOAD, ended, turns, until


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CopiesBench]:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.005)
    bench = CopiesBench()
    yield bench
    await bench.assert_all_over()


ALL = Policy(mode=Mode.ALL)


def parts_of(ending: Ending) -> list[tuple[str, str | None, str | None, bytes]]:
    """Key, pool and error of each part, and its message."""
    kind = next(value for name, value in ending.response.fields if name == b"Content-Type")
    message = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + ending.response.body, policy=HTTP)
    assert not message.defects
    found = []
    for part in message.iter_parts():
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        found.append((part["Rabbitbal-Key"], part["Rabbitbal-Pool"], part["Rabbitbal-Error"], payload))
    return found


async def test_all_answers_come_in_the_order_of_the_keys(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b", BAD)
    await turns(20)
    assert not task.done()
    bench.reply(Kind.RESPONSE, bench.number("a"), worker="w", payload=encode_response(OK), pool="north")
    ending = await ended(task)
    assert (ending.response.status, ending.reason, ending.fields) == (200, None, [])
    assert [part[:3] for part in parts_of(ending)] == [("a", "north", None), ("b", None, None)]
    assert parts_of(ending)[0][3] == encode_response(OK)
    assert parts_of(ending)[1][3] == encode_response(BAD)
    group = bench.broker.requests[0].envelope.group
    (event,) = [sent.envelope for sent in bench.broker.told(Kind.ENDED)]
    assert (event.correlation_id, event.status, event.reason, event.leg) == (group, 200, None, None)


async def test_a_part_that_failed_says_why(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b", order=replace(ORDER, timeout=0.1))
    await bench.published(2)
    bench.answer_to("a")
    ending = await ended(task)
    assert ending.fields == [(b"rabbitbal-failed", b"b")]
    assert [part[2] for part in parts_of(ending)] == [None, "queue-timeout"]
    assert parts_of(ending)[1][3].startswith(b"HTTP/1.1 504 ")


async def test_where_all_fail_the_answer_is_an_error(bench: CopiesBench) -> None:
    ending = await ended(bench.run(ALL, "a", "b", order=replace(ORDER, timeout=0.05)))
    assert (ending.response.status, ending.reason) == (504, Reason.QUEUE_TIMEOUT)


async def test_streamed_parts_are_collected(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    bench.head_to("a")
    await turns()
    bench.piece_to("a", b" and last")
    ending = await ended(task)
    assert parts_of(ending)[0][3].endswith(b"\r\n\r\nfirst and last")


async def test_a_streamed_part_that_breaks_is_an_error_of_its_own(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    bench.head_to("a")
    await turns()
    bench.reply(Kind.BODY, bench.number("a"), worker="w-a", sequence=1, more=False, reason=Reason.APP_ERROR)
    ending = await ended(task)
    assert [part[2] for part in parts_of(ending)] == ["app-error", None]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_part_beyond_its_limit_is_refused(bench: CopiesBench, streamed: bool) -> None:
    task = bench.run(Policy(mode=Mode.ALL, part_limit=4), "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    if streamed:
        bench.head_to("a")
    else:
        bench.answer_to("a", Response(200, [(b"Content-Length", b"5")], b"12345"))
    ending = await ended(task)
    assert [part[2] for part in parts_of(ending)] == ["bad-response", None]
    if streamed:
        await until(lambda: bench.cancels() == ["w-a"])


async def test_the_client_leaves_a_gathering(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("a")
    await turns()
    bench.departure.client_left()
    ending = await ended(task)
    assert (ending.reason, ending.response.status) == (Reason.CLIENT_GONE, 499)
    assert [envelope.reason for envelope in told(bench)] == [Reason.CLIENT_GONE]


async def test_a_client_that_leaves_while_a_part_streams(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    bench.head_to("a")
    await turns()
    bench.departure.client_left()
    assert (await ended(task)).reason is Reason.CLIENT_GONE
    await until(lambda: bench.cancels() == ["w-a"])


async def test_the_log_has_a_line_for_what_the_client_got(bench: CopiesBench) -> None:
    """Also where that is an error, and where it is gone."""
    bench.broker.verdicts.extend([Verdict.REJECTED, Verdict.REJECTED])
    await ended(bench.run(ALL, "a", "b"))
    (event,) = told(bench)
    assert (event.reason, event.status, event.size, event.leg) == (Reason.OVERLOADED, 503, 0, None)
    assert event.correlation_id == event.group == bench.broker.requests[0].envelope.group
    bench.broker.notices.clear()
    task = bench.run(ALL, "a", "b")
    await bench.published(4)
    task.cancel()
    await until(lambda: told(bench))
    (event,) = told(bench)
    assert (event.reason, event.status) == (Reason.CLIENT_GONE, 499)


def told(bench: CopiesBench) -> list[Envelope]:
    """Endings of groups, with the heads of their requests."""
    found = [sent for sent in bench.broker.told(Kind.ENDED) if sent.envelope.correlation_id == sent.envelope.group]
    assert all(sent.body == PAYLOAD for sent in found)
    return [sent.envelope for sent in found]


async def test_where_the_only_answers_break_the_error_is_that_of_the_first(bench: CopiesBench) -> None:
    """Although its application had begun to answer."""
    bench.broker.verdicts.extend([Verdict.ROUTED, Verdict.REJECTED])
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.head_to("a")
    await turns()
    bench.reply(Kind.BODY, bench.number("a"), worker="w-a", sequence=1, more=False, reason=Reason.APP_ERROR)
    ending = await ended(task)
    assert (ending.reason, ending.response.status, ending.fields) == (Reason.APP_ERROR, 500, [])


async def test_a_stream_without_end_ends_at_the_deadline(bench: CopiesBench) -> None:
    """What is there of it is no answer."""
    task = bench.run(ALL, "a", "b", order=replace(ORDER, timeout=0.1))
    await bench.published(2)
    bench.answer_to("b")
    bench.head_to("a")
    await turns()
    bench.piece_to("a", b"tick", more=True)
    ending = await ended(task)
    assert [part[2] for part in parts_of(ending)] == ["worker-timeout", None]
    await until(lambda: bench.cancels() == ["w-a"])


async def test_a_streamed_part_of_another_length_than_declared_is_bad(bench: CopiesBench) -> None:
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    payload = encode_response(Response(200, [(b"Content-Length", b"9")], b"first"), more=True)
    bench.reply(Kind.RESPONSE, bench.number("a"), worker="w-a", payload=payload, more=True)
    await turns()
    bench.piece_to("a", b"abc")
    assert [part[2] for part in parts_of(await ended(task))] == ["bad-response", None]


async def test_parts_count_against_the_room() -> None:
    """What does not fit is a part that failed, and the others are whole."""
    bench = CopiesBench(buffer_limit=2 * len(PAYLOAD) + 200)
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    bench.answer_to("a", Response(200, [(b"Content-Length", b"300")], b"a" * 300))
    assert [part[2] for part in parts_of(await ended(task))] == ["overloaded", None]
    await bench.assert_all_over()


@pytest.mark.parametrize("where", ["waiting", "streaming"])
async def test_a_task_that_is_cancelled_leaves_no_part(bench: CopiesBench, where: str) -> None:
    """The edge goes down."""
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    if where == "streaming":
        bench.head_to("a")
    await turns(20)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await until(lambda: bench.cancels() == (["w-a"] if where == "streaming" else ["*"]))


async def test_a_request_for_the_head_gets_every_head(bench: CopiesBench) -> None:
    """The lengths are those of bodies that were not sent; the outer one is that of the whole answer."""
    task = bench.run(ALL, "a", "b", order=replace(ORDER, method="HEAD", payload=PAYLOAD.replace(b"GET", b"HEAD")))
    await bench.published(2)
    for key in "ab":
        bench.answer_to(key, Response(200, [(b"Content-Length", b"1000")]))
    ending = await ended(task)
    assert [part[3] for part in parts_of(ending)] == [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"] * 2
    assert (b"Content-Length", b"%d" % len(ending.response.body)) in ending.response.fields
    (event,) = [sent.envelope for sent in bench.broker.told(Kind.ENDED)]
    assert event.size == 0


async def test_one_dead_pool_of_three_is_one_failed_part(bench: CopiesBench) -> None:
    bench.broker.verdicts.extend([Verdict.ROUTED, Verdict.UNROUTABLE, Verdict.ROUTED])
    task = bench.run(ALL, "a", "b", "c", order=replace(ORDER, route_grace=0.0))
    await bench.published(3)
    bench.answer_to("a")
    bench.answer_to("c")
    ending = await ended(task)
    assert [part[:3] for part in parts_of(ending)] == [("a", None, None), ("b", None, "unroutable"), ("c", None, None)]
    assert ending.fields == [(b"rabbitbal-failed", b"b")]


async def test_a_head_that_has_no_room_for_its_length_is_bad(bench: CopiesBench) -> None:
    """It is streamed without one, and would have one as a part."""
    task = bench.run(ALL, "a", "b")
    await bench.published(2)
    bench.answer_to("b")
    filler = MAX_HEAD - len(encode_response(Response(200, [(b"X", b"")]), more=True))
    payload = encode_response(Response(200, [(b"X", b"x" * filler)], b"a"), more=True)
    bench.reply(Kind.RESPONSE, bench.number("a"), worker="w-a", payload=payload, more=True)
    await turns()
    bench.piece_to("a", b"b")
    assert [part[2] for part in parts_of(await ended(task))] == ["bad-response", None]


def test_parts_that_look_like_boundaries_are_parts() -> None:
    """Whatever a body holds, an answer has as many parts as there are keys."""
    tricky = b"\r\n--rabbitbal-0\r\n\r\n--rabbitbal-0--\r\n--"
    message = message_of(Response(200, [(b"Content-Length", b"%d" % len(tricky))], tricky))
    parts = [Part(key, None, None, message) for key in ("a", "b")]
    response = combined(parts)
    ending = Ending(response, None, None, 1, 0.0, None)
    assert [part[3] for part in parts_of(ending)] == [message, message]
    assert combined(parts).fields != response.fields, "another boundary each time"


@pytest.mark.parametrize("pool", ["a\r\nSet-Cookie: x", "\u00e9", "x" * 201, ""])
def test_a_strange_pool_breaks_no_part(pool: str) -> None:
    response = combined([Part("a", pool, None, message_of(OK))])
    ((key, told, error, message),) = parts_of(Ending(response, None, None, 1, 0.0, None))
    assert (key, told or "", error, message) == ("a", "", None, encode_response(OK))


def test_what_an_application_says_in_our_name_is_left_out() -> None:
    forged = Response(200, [(b"Rabbitbal-Error", b"no"), (b"X", b"y")])
    assert message_of(forged) == b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"
    assert failed([Part("a", None, None, b""), Part("b", None, Reason.POISON, b"")]) == b"b"
