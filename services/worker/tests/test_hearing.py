"""A request that is older than the worker's connection is not run before its edge can hear the answer."""

import time
from collections import deque

import pytest

from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Kind
from rabbitbal.worker import hearing, post
from tests.bench import CUT, EDGE, Bench, done
from tests.harness import until

BEFORE = 10.0


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(hearing, "PERIOD", 0.001)
    monkeypatch.setattr(post, "RETRY_PERIOD", 0.001)
    bench = Bench()
    bench.broker.since = time.time()
    return bench


async def test_a_request_of_this_connections_time_is_run_at_once(bench: Bench) -> None:
    """Nobody is asked: that would cost each request a round trip."""
    bench.broker.since = time.time() - hearing.CLOCKS - 1
    task = bench.deliver()
    await bench.running()
    bench.app.finish()
    await done(task)
    assert bench.broker.kinds() == [Kind.RESPONSE]


async def test_an_older_request_waits_until_its_edge_is_back(bench: Bench) -> None:
    """The broker has restarted, and the worker was quicker than the edge."""
    probes = bench.broker.by_kind.setdefault(Kind.PROBE, deque())
    probes.extend([Verdict.UNROUTABLE] * 3)
    task = bench.deliver(sent=time.time() - BEFORE)
    await until(lambda: not probes)
    await bench.running()
    bench.app.finish()
    await done(task)
    assert (bench.broker.kinds()[0], bench.broker.kinds()[-1]) == (Kind.PROBE, Kind.RESPONSE)
    # Not by the key that the tap hears, too: that message always arrives somewhere.
    assert bench.broker.sent[0][:2] == (topology.RESPONSES, topology.body_key(EDGE))
    assert bench.settled() == ["ack"]


async def test_a_loss_is_told_when_the_edge_is_back(bench: Bench) -> None:
    """It decides about the request, and would wait for it until the deadline."""
    bench.broker.by_kind[Kind.PROBE] = deque([Verdict.UNROUTABLE] * 3)
    await done(bench.deliver(redelivered=True, sent=time.time() - BEFORE))
    assert (bench.broker.kinds(), bench.settled()) == ([Kind.PROBE, Kind.REDELIVERED], ["ack"])


async def test_an_older_request_of_an_edge_that_is_gone_is_dropped(bench: Bench) -> None:
    """Nobody waits for its answer, and a slot is not held for it for ever."""
    bench.broker.since = time.time() - hearing.PATIENCE
    bench.broker.by_kind[Kind.PROBE] = deque([Verdict.UNROUTABLE])
    await done(bench.deliver(sent=time.time() - BEFORE))
    assert (bench.app.calls, bench.settled()) == ([], ["ack"])


async def test_an_older_request_goes_back_where_the_broker_cannot_be_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker that has it will give it to somebody."""
    monkeypatch.setattr(hearing, "PUBLISH_TIMEOUT", 0.02)
    bench.broker.by_kind[Kind.PROBE] = deque([CUT] * 1000)
    await done(bench.deliver(sent=time.time() - BEFORE))
    assert (bench.app.calls, bench.settled()) == ([], ["requeue"])


async def test_a_request_that_was_cancelled_in_the_meantime_is_not_run(bench: Bench) -> None:
    """Its client left while its edge was looked for."""
    probes = bench.broker.by_kind.setdefault(Kind.PROBE, deque())
    probes.extend([Verdict.UNROUTABLE] * 1000)
    task = bench.deliver(sent=time.time() - BEFORE)
    await until(lambda: len(probes) < 1000)
    bench.tell(Kind.CANCEL)
    probes.clear()
    await done(task)
    assert (bench.app.calls, bench.settled()) == ([], ["ack"])
