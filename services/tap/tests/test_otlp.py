"""The exporter, with a collector on a real socket: what arrives, and what becomes of what it does not take."""

import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Received
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from structlog.testing import capture_logs

from rabbitbal.runtime.settings import SettingsError, read
from rabbitbal.tap.otlp import Collector
from rabbitbal.tap.settings import Settings
from rabbitbal.tap.traces import Role, Span
from tests.otlp_receiver import Receiver

SPAN = Span("request", Role.SERVER, 1 << 100, 7, 5, 1_000, 2_000, {"http.response.status_code": 500}, "app-error")


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.01)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def more_lost(collector: Collector, than: int) -> bool:
    return collector.stats()["lost"] > than


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_span_arrives_as_it_was(receiver: Receiver) -> None:
    """Ids, parent, kind, times, attributes and status, below the collector's base address."""
    collector = Collector(f"http://127.0.0.1:{receiver.port}/base/", "tap-1", delay=0.05)
    collector.take(SPAN)
    until(receiver.spans)
    collector.close()
    (span,) = receiver.spans()
    assert (span.name, span.kind, span.start_time_unix_nano, span.end_time_unix_nano) == (
        "request",
        Received.SPAN_KIND_SERVER,
        1_000,
        2_000,
    )
    assert (int.from_bytes(span.trace_id), int.from_bytes(span.span_id)) == (1 << 100, 7)
    assert int.from_bytes(span.parent_span_id) == 5
    assert [(a.key, a.value.int_value) for a in span.attributes] == [("http.response.status_code", 500)]
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "app-error")
    assert (receiver.paths, receiver.services()) == (["/base/v1/traces"], {"rabbitbal"})
    assert collector.stats() == {"exported": 1, "waiting": 0, "dropped": 0, "lost": 0}


def test_what_waits_is_sent_at_the_end(receiver: Receiver) -> None:
    """A tap that stops does not keep its last spans."""
    collector = Collector(f"http://127.0.0.1:{receiver.port}", "tap-1", delay=60)
    collector.take(SPAN)
    collector.close()
    until(lambda: len(receiver.spans()) == 1)


def test_a_collector_that_hangs_holds_nobody_up(receiver: Receiver) -> None:
    """What does not fit into the queue is dropped, and counted; nothing more is lost when it goes on."""
    receiver.open.clear()
    collector = Collector(f"http://127.0.0.1:{receiver.port}", "tap-1", queue=8, delay=0.05)
    began = time.monotonic()
    for _ in range(20):
        collector.take(SPAN)
    assert time.monotonic() - began < 1
    assert collector.stats() == {"exported": 0, "waiting": 8, "dropped": 12, "lost": 0}
    receiver.open.set()
    until(lambda: collector.stats()["exported"] == 8)
    collector.close()


def test_a_dead_collector_is_told_once() -> None:
    """The spans are counted as lost. The exporter's own lines do not flood the log."""
    with capture_logs() as lines:
        collector = Collector(f"http://127.0.0.1:{closed_port()}", "tap-1", queue=8, delay=0.02, patience=0.2)
        for _ in range(3):
            collector.take(SPAN)
            lost = collector.stats()["lost"]
            until(partial(more_lost, collector, lost))
        collector.close()
    assert [line["event"] for line in lines] == ["tap.traces_lost"]
    assert collector.stats() == {"exported": 0, "waiting": 0, "dropped": 0, "lost": 3}


def test_a_collector_that_is_back_is_told() -> None:
    """With how many spans it never got."""
    with Receiver(status=400) as receiver, capture_logs() as lines:
        collector = Collector(f"http://127.0.0.1:{receiver.port}", "tap-1", delay=0.02)
        collector.take(SPAN)
        until(lambda: collector.stats()["lost"] == 1)
        receiver.status = 200
        collector.take(SPAN)
        until(lambda: collector.stats()["exported"] == 1)
        until(lambda: len(lines) == 2)
        collector.close()
    assert [(line["event"], line.get("lost")) for line in lines] == [("tap.traces_lost", None), ("tap.traces_taken", 1)]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RABBITBAL_OTLP_ENDPOINT", "collector:4318"),
        ("RABBITBAL_OTLP_ENDPOINT", "http://collector:4318/?a=b"),
        ("RABBITBAL_TRACES_LIMIT", "0"),
    ],
)
def test_a_bad_setting_names_its_variable(variable: str, text: str) -> None:
    """One line for the operator."""
    with pytest.raises(SettingsError, match=variable):
        read(Settings, {variable: text})
