"""Probing: who is watched is asked, who is gone is told of, and a broker that is away says nothing of anybody."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

import pytest

from rabbitbal.runtime.broker import Disconnected, Verdict
from rabbitbal.runtime.probing import Prober

CUT = Disconnected("connection lost", sent=True)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.001)


class Bench:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gone: list[str] = []
        self.answers: dict[str, deque[Verdict | Disconnected]] = {}
        self.prober = Prober(self.probe, self.gone.append, period=0.001)

    async def probe(self, peer: str) -> Verdict:
        self.asked.append(peer)
        answers = self.answers.get(peer)
        answer = answers.popleft() if answers else Verdict.ROUTED
        if isinstance(answer, Disconnected):
            raise answer
        return answer

    async def rounds(self, peer: str, number: int) -> None:
        """Until the peer was asked so many times more, and the last answer was looked at."""
        wanted = self.asked.count(peer) + number + 1
        await until(lambda: self.asked.count(peer) >= wanted)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    task = asyncio.ensure_future(bench.prober.run())
    yield bench
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_nobody_is_asked_while_nobody_is_watched(bench: Bench) -> None:
    """And nobody any more once every watch is forgotten."""
    bench.prober.watch("a")
    bench.prober.watch("a")
    await bench.rounds("a", 1)
    bench.prober.forget("a")
    await bench.rounds("a", 1)
    bench.prober.forget("a")
    bench.prober.watch("b")
    asked = bench.asked.count("a")
    await bench.rounds("b", 3)
    assert (asked, bench.gone) == (bench.asked.count("a"), [])


async def test_a_peer_whose_probes_come_back_is_gone(bench: Bench) -> None:
    """Two in a row; the others are not concerned."""
    bench.answers["a"] = deque([Verdict.ROUTED, Verdict.UNROUTABLE, Verdict.UNROUTABLE])
    bench.prober.watch("a")
    bench.prober.watch("b")
    await until(lambda: bench.gone)
    await bench.rounds("b", 3)
    assert bench.gone == ["a"]


@pytest.mark.parametrize("between", [Verdict.ROUTED, Verdict.REJECTED])
async def test_a_single_return_is_not_believed(bench: Bench, between: Verdict) -> None:
    """The peer may be about to declare its queue anew; a full queue is a queue."""
    bench.answers["a"] = deque([Verdict.UNROUTABLE, between] * 3)
    bench.prober.watch("a")
    await bench.rounds("a", 6)
    assert bench.gone == []


async def test_a_broker_that_is_away_counts_neither_way(bench: Bench) -> None:
    """A return before and one behind it are two in a row."""
    bench.answers["a"] = deque([CUT, CUT, CUT, Verdict.UNROUTABLE, CUT])
    bench.prober.watch("a")
    await bench.rounds("a", 6)
    assert bench.gone == []
    bench.answers["a"] = deque([Verdict.UNROUTABLE, CUT, Verdict.UNROUTABLE])
    await until(lambda: bench.gone)
    assert bench.gone == ["a"]


async def test_a_peer_that_is_watched_anew_starts_afresh(bench: Bench) -> None:
    """What was returned to the former watch does not count."""
    bench.answers["a"] = deque([Verdict.UNROUTABLE, *[CUT] * 100_000])
    bench.prober.watch("a")
    await until(lambda: bench.prober._returned)
    bench.prober.forget("a")
    assert bench.prober._returned == {}
