"""docs/wire-format.md says what the code does: its examples decode, and nothing that has a name is missing from it."""

import dataclasses
import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rabbitbal.wire import topology, verdicts
from rabbitbal.wire.envelope import Envelope, Kind, Leg, parse_envelope
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.fields import HOP_BY_HOP
from rabbitbal.wire.figures import (
    MOST_BYTES,
    MOST_POOLS,
    EdgeFigures,
    PoolFigures,
    WorkerFigures,
    decode_figures,
    encode_figures,
)
from rabbitbal.wire.message import (
    CONTENT_TYPE,
    MAX_HEAD,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from rabbitbal.wire.reasons import Reason, error_response, status_of
from rabbitbal.wire.verdicts import decode_verdict, encode_verdict

TEXT = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()

# A message, and behind it its payload if it has one.
EXAMPLES = re.findall(r"```json\n(.*?)```\n(?:\n```http\n(.*?)\n```)?", TEXT, re.DOTALL)
DUMP = re.findall(r"^[0-9a-f]{8}  ((?:[0-9a-f]{2} ?)+)", TEXT, re.MULTILINE)

PROPERTIES = {"type", "correlation_id", "app_id", "reply_to", "expiration", "content_type"}
PROPERTIES |= {"delivery_mode", "user_id"}

ORDERS = {Kind.DRAIN, Kind.RESUME}
# Their payloads are JSON objects.
OBJECTS = {Kind.NOTICE, Kind.FIGURES, Kind.VERDICT}
# The broker vouches for who sends these.
VOUCHED = {Kind.DRAIN: topology.OPERATOR, Kind.RESUME: topology.OPERATOR, Kind.VERDICT: topology.TAP}


def payload(block: str) -> bytes:
    head, _, body = f"{block}\n".partition("\n\n")
    return (head.replace("\n", "\r\n") + "\r\n\r\n" + body.removesuffix("\n")).encode()


def envelope(message: dict[str, Any]) -> Envelope:
    properties = message["properties"]
    return parse_envelope(
        kind=properties["type"],
        correlation_id=properties["correlation_id"],
        app_id=properties["app_id"],
        reply_to=properties.get("reply_to"),
        headers=message["headers"],
    )


def test_there_is_an_example_of_every_kind() -> None:
    assert {envelope(json.loads(message)).kind for message, _ in EXAMPLES} == set(Kind)
    assert TEXT.count("```json") == len(EXAMPLES)
    assert TEXT.count("```http") == sum(block != "" for _, block in EXAMPLES)


@pytest.mark.parametrize(("message", "block"), EXAMPLES)
def test_every_example_is_a_message_that_the_code_reads_and_writes(message: str, block: str) -> None:
    example = json.loads(message)
    properties = example["properties"]
    found = envelope(example)
    assert found.headers() == example["headers"]
    assert set(properties) <= PROPERTIES
    assert (properties.get("content_type") == CONTENT_TYPE) == (block != "")
    assert (properties.get("content_type") == "application/json") == ("payload" in example)
    assert ("payload" in example) == (found.kind in OBJECTS)
    if found.kind is Kind.FIGURES:
        written = json.dumps(example["payload"]).encode()
        assert json.loads(encode_figures(decode_figures(written))) == example["payload"]
    if found.kind is Kind.VERDICT:
        written = json.dumps(example["payload"]).encode()
        assert json.loads(encode_verdict(decode_verdict(written))) == example["payload"]
    assert properties.get("user_id") == VOUCHED.get(found.kind)
    assert (block != "") == (found.kind in {Kind.REQUEST, Kind.RESPONSE})
    more = found.more or False
    if found.kind is Kind.REQUEST:
        request = decode_request(payload(block), more=more)
        assert encode_request(request, more=more) == payload(block)
        assert properties["expiration"].isdecimal()
    elif found.kind is Kind.RESPONSE:
        response = decode_response(payload(block), more=more)
        assert encode_response(response, more=more) == payload(block)
        assert found.reason is None or response == error_response(found.reason)


@pytest.mark.parametrize(("message", "block"), EXAMPLES)
def test_every_example_is_published_where_its_sender_may_publish(message: str, block: str) -> None:
    example = json.loads(message)
    found = envelope(example)
    exchange, key = example["exchange"], example["routing_key"]
    expected = {
        Kind.REQUEST: (topology.REQUESTS, topology.request_key("shop.eu" if found.partition else "default")),
        Kind.CANCEL: (topology.STREAMS, "worker-1-d4e5f6"),
        Kind.CREDIT: (topology.STREAMS, "worker-1-d4e5f6"),
        Kind.PROBE: (topology.STREAMS, "worker-1-d4e5f6"),
        Kind.BODY: (topology.RESPONSES, topology.body_key("edge-1-a1b2c3")),
        Kind.DRAIN: (topology.STREAMS, "worker-1-d4e5f6"),
        Kind.RESUME: (topology.STREAMS, "worker-1-d4e5f6"),
        Kind.ENDED: (topology.EVENTS, f"ended.{found.app_id}"),
        Kind.NOTICE: (topology.EVENTS, topology.notice_key("worker", found.app_id)),
        Kind.VERDICT: (topology.EVENTS, topology.VERDICT_KEY),
        Kind.FIGURES: (topology.EVENTS, topology.figures_key(found.app_id.split("-")[0], found.app_id)),
    }.get(found.kind, (topology.RESPONSES, topology.response_key("edge-1-a1b2c3")))
    assert (exchange, key) == expected
    from_worker = found.app_id.startswith("worker")
    permissions = topology.ROLES[VOUCHED.get(found.kind, "worker" if from_worker else "edge")]
    assert re.search(permissions.write, exchange)
    assert re.search(permissions.topics.get(exchange, ("", ""))[0], key)


def test_the_examples_tell_of_one_request() -> None:
    found = [envelope(json.loads(message)) for message, _ in EXAMPLES]
    apart = {*ORDERS, *OBJECTS}
    assert len({one.correlation_id for one in found if one.kind not in apart and one.partition is None}) == 1
    assert {one.attempt for one in found} == {1}


def test_the_example_of_a_notice_has_what_every_notice_has() -> None:
    examples = [json.loads(message) for message, _ in EXAMPLES]
    (notice,) = [one["payload"] for one in examples if one["properties"]["type"] == Kind.NOTICE]
    assert list(notice)[:3] == ["event", "when", "who"]
    when = datetime.fromisoformat(notice["when"])
    assert when.utcoffset() == timedelta(0)


def test_what_is_said_of_sticky_pools_is_in_the_code() -> None:
    """The names of their objects, their number, and how a binding reads."""
    assert f"It has {topology.PARTITIONS} partitions" in TEXT
    assert f"0 to {topology.PARTITIONS - 1}:" in TEXT
    assert f"floor* of {topology.PARTITIONS} / N" in TEXT
    for exchange in topology.sticky_exchanges("<pool>"):
        assert f"| `{exchange.name}` | {exchange.type} |" in TEXT
        assert all(f"`{argument}`" in TEXT for argument in exchange.arguments)
    binding = topology.partition_bindings("<pool>")[7]
    row = binding.queue.replace(".7", ".<n>")
    assert binding.arguments == {"x-match": "all", "partition": "7"}
    expected = f"| `{row}` | `{binding.exchange}`, arguments `x-match` = `all` and `partition` = `<n>` |"
    assert expected in TEXT


@pytest.mark.parametrize("leg", Leg)
def test_every_leg_has_its_row(leg: Leg) -> None:
    assert f"| `{leg}` | " in TEXT


def test_the_bytes_of_the_request_are_those_of_its_example() -> None:
    block = next(block for message, block in EXAMPLES if json.loads(message)["properties"]["type"] == "request")
    assert bytes.fromhex(" ".join(DUMP)) == payload(block)


@pytest.mark.parametrize("name", [*Kind, *Reason])
def test_every_kind_and_reason_is_in_the_document(name: str) -> None:
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("reason", Reason)
def test_the_table_of_reasons_is_that_of_the_code(reason: Reason) -> None:
    text = error_response(reason).body.decode().removeprefix(f"rabbitbal: {reason}: ").removesuffix("\n")
    assert f"| `{reason}` | {status_of(reason)} | {text} |" in TEXT


def test_every_object_of_the_broker_is_in_the_document() -> None:
    queues = (*topology.TAP_QUEUES, *topology.DEAD_QUEUES)
    for exchange in topology.EXCHANGES:
        assert f"| `{exchange.name}` | {exchange.type} |" in TEXT
    for queue in queues:
        assert f"| `{queue.name}` |" in TEXT
    for name in (topology.pool_queue("<pool>"), topology.edge_queue("<edge id>"), topology.worker_queue("<worker id>")):
        assert f"| `{name}` |" in TEXT
    for key in (
        topology.request_key("<key>"),
        topology.notice_key("<role>", "<id>"),
        topology.figures_key("<role>", "<id>"),
        topology.VERDICT_KEY,
        topology.response_key("<edge id>"),
        topology.body_key("<edge id>"),
        topology.EVERY_WORKER,
    ):
        assert f"`{key}`" in TEXT
    rows = {row.split("`")[1]: row for row in TEXT.splitlines() if row.startswith("| `")}
    for binding in topology.FIXED_BINDINGS:
        assert f"`{binding.exchange}`" in rows[binding.queue]
        assert not binding.key or f"`{binding.key}`" in rows[binding.queue]
    for queue in queues:
        bindings = (*topology.FIXED_BINDINGS, *topology.pool_bindings("<pool>"))
        assert rows[queue.name].count("`rabbitbal.") == sum(one.queue == queue.name for one in bindings)
    assert f"| `{topology.pool_exchange('<pool>')}` | fanout |" in TEXT
    for argument, value in topology.PRIVATE_QUEUE_ARGUMENTS.items():
        assert f"`{argument}` {value if isinstance(value, int) else f'`{value}`'}" in TEXT.replace("\n", " ")


def test_the_permissions_are_those_of_the_code() -> None:
    for role, permissions in topology.ROLES.items():
        lines = [
            role,
            f"  configure  {permissions.configure}",
            f"  write      {permissions.write}",
            f"  read       {permissions.read}",
            *(f"  topic      {name}  write {write}  read {read}" for name, (write, read) in permissions.topics.items()),
        ]
        assert "\n".join(lines) + "\n" in TEXT


def test_every_header_and_property_has_its_row() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (?:integer|boolean|string) \|", TEXT, re.MULTILINE)
    carried_by_properties = {"kind", "correlation_id", "app_id", "reply_to", "expiration", "persistent", "user_id"}
    headers = {one.name for one in dataclasses.fields(Envelope)} - carried_by_properties | {"version"}
    assert sorted(rows) == sorted(headers)
    assert set(re.findall(r"^\| `([a-z_]+)` \| (?:shortstr|octet) \|", TEXT, re.MULTILINE)) == PROPERTIES


def test_every_figure_is_in_the_document() -> None:
    for kind, who in ((EdgeFigures, "edge"), (WorkerFigures, "worker")):
        for field in dataclasses.fields(kind):
            assert f"| `{field.name}` | {who} |" in TEXT or f"| `{field.name}` | both |" in TEXT, field.name
    row = next(line for line in TEXT.splitlines() if line.startswith("| `pools` |"))
    assert all(f"`{field.name}`" in row for field in dataclasses.fields(PoolFigures))
    assert f"at most {MOST_POOLS} members" in row
    assert f"at most {MOST_BYTES} bytes" in TEXT


def test_everything_of_a_verdict_is_in_the_document() -> None:
    section = TEXT.partition("## 9. Verdicts")[2]
    assert all(f"`{field.name}`" in section for field in dataclasses.fields(verdicts.Verdict))
    assert all(f"`{kind}`" in section for kind in verdicts.Suspicion)
    assert f"at most {verdicts.MOST_BYTES} bytes" in section
    assert f"at most {verdicts.MOST_REASONS} texts of at most {verdicts.LONGEST_REASON} characters" in section
    assert "every ten seconds" in section
    assert verdicts.REPEATED == 10


def test_limits_and_fields_are_those_of_the_code() -> None:
    assert f"{MAX_HEAD} bytes" in TEXT
    named = {name.lower() for name in re.findall(r"`([A-Za-z-]+)`", TEXT)}
    assert {name.decode() for name in HOP_BY_HOP} <= named


def test_what_the_document_forbids_is_refused() -> None:
    """The rules of section 3, each broken once in the example of the request."""
    block = next(block for message, block in EXAMPLES if json.loads(message)["properties"]["type"] == "request")
    good = payload(block)
    assert decode_request(good)
    for broken in (
        good.replace(b"\r\n", b"\n"),
        good.replace(b"HTTP/1.1", b"HTTP/1.0"),
        good.replace(b"Host:", b"Host :"),
        good.replace(b"Host:", b" Host:"),
        good.replace(b"shop", b"sh\x00p"),
        good.replace(b"Via", b"Transfer-Encoding"),
        good.replace(b"Content-Length: ", b"Content-Length: 0"),
        good + b"\n",
        good[:-1],
    ):
        assert broken != good
        with pytest.raises(WireError):
            decode_request(broken)
