"""What an edge counts of its requests: each is opened once and closed once, whatever becomes of it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitbal.edge import figures as module
from rabbitbal.edge import publishing
from rabbitbal.edge.figures import Figures
from rabbitbal.edge.notices import MAX_NOTICES
from rabbitbal.edge.ticket import Ending, Order
from rabbitbal.runtime.broker import Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Kind, Leg
from rabbitbal.wire.figures import EdgeFigures, decode_figures
from rabbitbal.wire.reasons import Reason
from tests.edge_bench import CUT, ONCE, ORDER, UNSENT, Answer, Bench, Streams, ended, turns, until


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Streams:
    monkeypatch.setattr(publishing, "RETRY_PERIOD", 0.002)
    return Streams()


def answers(*those: Answer) -> deque[Answer]:
    return deque(those)


def told(bench: Bench) -> EdgeFigures:
    return bench.pending.figures(1000, leaving=False)


def counts(bench: Bench) -> tuple[int, int, int, int]:
    figures = told(bench)
    return figures.opened, figures.closed, figures.untold, figures.pending


async def test_a_request_is_opened_when_a_pool_has_it_and_closed_at_its_answer(bench: Streams) -> None:
    """Not when it came: nobody but this edge knows of it until then."""
    confirm: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    bench.broker.verdicts.append(confirm)
    task = await bench.started()
    assert counts(bench) == (0, 0, 0, 1)
    confirm.set_result(Verdict.ROUTED)
    await turns()
    assert counts(bench) == (1, 0, 0, 1)
    bench.answer()
    await ended(task)
    assert counts(bench) == (1, 1, 0, 0)
    assert told(bench).endings == {"answered": 1}


async def test_an_answer_that_overtakes_the_confirm_opens_and_closes(bench: Streams) -> None:
    """A pool had it, although the broker had not said so yet."""
    bench.broker.verdicts.append(asyncio.get_running_loop().create_future())
    task = await bench.started()
    bench.answer()
    await ended(task)
    assert counts(bench) == (1, 1, 0, 0)


async def test_attempts_are_one_request(bench: Streams) -> None:
    """It is given to a pool for the first time once."""
    task = await bench.started()
    bench.reply(Kind.REDELIVERED)
    await until(lambda: len(bench.broker.requests) == 2)
    await turns()
    assert counts(bench) == (1, 0, 0, 1)
    bench.answer()
    await ended(task)
    assert counts(bench) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("verdict", "reason"), [(Verdict.REJECTED, Reason.OVERLOADED), (Verdict.UNROUTABLE, Reason.UNROUTABLE)]
)
async def test_a_request_that_no_pool_takes_is_opened_by_its_end(
    bench: Streams, verdict: Verdict, reason: Reason
) -> None:
    """The tap learns of it then."""
    bench.broker.verdicts.append(verdict)
    ending = await ended(bench.start(replace(ORDER, route_grace=0.0)))
    assert ending.reason is reason
    assert counts(bench) == (1, 1, 0, 0)


async def test_an_edge_that_is_full_counts_what_it_refuses() -> None:
    """It was never pending, and is in the books all the same."""
    bench = Bench(max_pending=0)
    assert (await ended(bench.start())).reason is Reason.OVERLOADED
    assert counts(bench) == (1, 1, 0, 0)


async def test_what_is_refused_or_gathered_is_opened_and_closed(bench: Streams) -> None:
    """By one event each."""
    bench.pending.refuse(Reason.BODY_TOO_LARGE, b"")
    bench.pending.gathered("5e0c", ORDER, None, 200, 7, 0.1)
    await turns()
    assert counts(bench) == (2, 2, 0, 0)
    assert len(bench.broker.told(Kind.ENDED)) == 2


async def test_a_stream_is_closed_when_its_body_is_over(bench: Streams) -> None:
    """Once, however often it is said."""
    ending = await bench.streaming()
    assert counts(bench) == (1, 0, 0, 1)
    bench.pending.close(ending, None, 5)
    bench.pending.close(ending, Reason.CLIENT_GONE, 0)
    assert counts(bench) == (1, 1, 0, 0)


async def test_a_stream_that_nobody_will_close_is_closed_and_untold(bench: Streams) -> None:
    """The edge goes down between the head and whoever was to pass it on."""
    task = await bench.started()
    bench.head()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert counts(bench) == (1, 1, 1, 0)


async def test_an_ending_that_cannot_be_told_is_counted(bench: Streams) -> None:
    """While the broker is away; and when it is lost on the way, as then nobody knows."""
    bench.broker.go_away()
    bench.pending.refuse(Reason.BAD_REQUEST, b"")
    assert counts(bench) == (1, 1, 1, 0)
    bench.broker.come_back()
    bench.broker.on_streams[Kind.ENDED] = answers(CUT, Verdict.REJECTED)
    bench.pending.refuse(Reason.BAD_REQUEST, b"")
    bench.pending.refuse(Reason.BAD_REQUEST, b"")
    bench.pending.refuse(Reason.BAD_REQUEST, b"")
    await turns()
    assert counts(bench) == (4, 4, 3, 0)


async def test_an_ending_beyond_the_bound_of_notices_is_counted(bench: Streams) -> None:
    """A broker that takes nothing may not fill the edge's memory."""
    bench.broker.notices_wait = asyncio.Event()
    for _ in range(MAX_NOTICES + 3):
        bench.pending.refuse(Reason.BAD_REQUEST, b"")
    assert counts(bench) == (MAX_NOTICES + 3, MAX_NOTICES + 3, 3, 0)
    bench.broker.notices_wait.set()
    await turns()


async def test_a_cancel_that_is_not_sent_is_no_ending(bench: Streams) -> None:
    """Only endings are in the books."""
    bench.broker.on_streams[Kind.CANCEL] = answers(CUT)
    task = await bench.started()
    bench.reply(Kind.CLAIM)
    bench.tickets[-1].client_left()
    await ended(task)
    assert counts(bench) == (1, 1, 0, 0)


async def test_the_oldest_request_is_the_one_that_came_first(bench: Streams) -> None:
    """What came earlier has ended: the tap need not wait for it."""
    assert told(bench).oldest is None
    first, second = await bench.started(), await bench.started()
    sent = [published.envelope.sent for published in bench.broker.requests]
    assert told(bench).oldest == sent[0]
    bench.answer(0)
    await ended(first)
    assert told(bench).oldest == sent[1]
    bench.answer(1)
    await ended(second)


# --- over whole lives, in any order


Step = Callable[[Streams, int], None]


def _answer(bench: Streams, number: int) -> None:
    bench.answer(number)


def _head(bench: Streams, number: int) -> None:
    bench.head(number)


def _redelivered(bench: Streams, number: int) -> None:
    bench.reply(Kind.REDELIVERED, number)


def _claim(bench: Streams, number: int) -> None:
    bench.reply(Kind.CLAIM, number)


STEPS: dict[str, Step] = {"answer": _answer, "head": _head, "redelivered": _redelivered, "claim": _claim}
ORDERS = [ORDER, ONCE, replace(ORDER, leg=Leg.SHADOW, group="5e0c"), replace(ORDER, route_grace=0.0, broker_grace=0.0)]
VERDICTS = ["confirmed", "later", Verdict.REJECTED, Verdict.UNROUTABLE, UNSENT, CUT]
steps = st.one_of(
    st.tuples(st.just("start"), st.sampled_from(ORDERS), st.sampled_from(VERDICTS)),
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 5)),
    st.tuples(st.sampled_from(["leave", "due", "supersede", "cancel", "close", "confirm"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(["lost", "away", "back", "refuse", "gather"])),
)


class Life:
    """Does steps to an edge, and keeps books of its own: what was begun, and what has come back."""

    def __init__(self) -> None:
        self.bench = Streams()
        self.tasks: list[asyncio.Task[Ending]] = []
        self.open: list[Ending] = []
        self.confirms: list[asyncio.Future[Verdict]] = []
        self.never_pending = 0

    async def do(self, step: tuple[object, ...]) -> None:
        bench, name, *more = self.bench, *step
        if name == "start":
            self.start(*more)  # type: ignore[arg-type]
        elif name in STEPS and bench.broker.requests:
            STEPS[str(name)](bench, int(str(more[0])) % len(bench.broker.requests))
        elif name in ("leave", "due", "supersede") and bench.tickets:
            ticket = bench.tickets[int(str(more[0])) % len(bench.tickets)]
            if name == "leave":
                ticket.client_left()
            elif name == "supersede":
                ticket.supersede()
            elif not ticket.settled:
                ticket.settle(Reason.QUEUE_TIMEOUT)
        elif name == "cancel" and self.tasks:
            self.tasks[int(str(more[0])) % len(self.tasks)].cancel()
        elif name == "close" and self.open:
            ending = self.open[int(str(more[0])) % len(self.open)]
            bench.pending.close(ending, None, 1)
        elif name == "confirm" and self.confirms:
            confirm = self.confirms.pop(int(str(more[0])) % len(self.confirms))
            if not confirm.done():
                confirm.set_result(Verdict.ROUTED)
        elif name == "lost":
            bench.pending.broker_lost()
        elif name == "away":
            bench.broker.go_away()
        elif name == "back":
            bench.broker.come_back()
        elif name == "refuse":
            self.never_pending += 1
            bench.pending.refuse(Reason.BAD_REQUEST, b"")
        elif name == "gather":
            self.never_pending += 1
            bench.pending.gathered("5e0c", ORDER, None, 200, 1, 0.1)
        await turns(3)

    def start(self, order: Order, verdict: object) -> None:
        if verdict == "later":
            confirm: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            self.confirms.append(confirm)
            self.bench.broker.verdicts.append(confirm)
        elif verdict != "confirmed":
            self.bench.broker.verdicts.append(verdict)  # type: ignore[arg-type]
        task = self.bench.start(order)
        task.add_done_callback(self._over)
        self.tasks.append(task)

    def _over(self, task: "asyncio.Task[Ending]") -> None:
        if not task.cancelled() and task.exception() is None and task.result().stream is not None:
            self.open.append(task.result())

    def check(self) -> None:
        found = told(self.bench)
        given = sum(ticket.opened for ticket in self.bench.pending._tickets.values())
        assert found.opened - found.closed == given <= found.pending
        assert found.untold <= found.closed

    async def end(self) -> None:
        """Everything comes to its end, and each request was counted once in each."""
        self.bench.broker.come_back()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await turns()
        for ending in self.open:
            self.bench.pending.close(ending, None, 1)
        await turns()
        total = len(self.tasks) + self.never_pending
        found = told(self.bench)
        # A task that was cancelled before its first step was no request yet.
        begun = len(self.bench.tickets) + self.never_pending
        assert begun <= found.opened == found.closed <= total
        assert found.pending == 0


@settings(max_examples=150)
@given(st.lists(steps, max_size=25))
def test_over_any_life_each_request_is_opened_once_and_closed_once(lives: list[tuple[object, ...]]) -> None:
    """`opened` less `closed` are the pending requests that a pool was given, at every step."""

    async def live() -> None:
        life = Life()
        for step in lives:
            await life.do(step)
            life.check()
        await life.end()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "RETRY_PERIOD", 0.0)
        patch.setattr(publishing, "FIRST_RETRY", 0.0)
        asyncio.run(live())


# --- on their way


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD", 0.005)


@pytest.mark.usefixtures("quick")
async def test_figures_are_told_again_and_again_to_whoever_reads_events(bench: Streams) -> None:
    """One that is lost is no matter."""
    bench.broker.on_streams[Kind.FIGURES] = answers(CUT, UNSENT)
    figures = Figures("edge-1", bench.broker, bench.pending)
    running = asyncio.ensure_future(figures.run())
    await until(lambda: len(bench.broker.told(Kind.FIGURES)) >= 4)
    running.cancel()
    first = bench.broker.told(Kind.FIGURES)[0]
    assert (first.exchange, first.key) == (topology.EVENTS, "figures.edge.edge-1")
    assert (first.envelope.app_id, first.envelope.correlation_id) == ("edge-1", "figures")
    found = decode_figures(first.body)
    assert isinstance(found, EdgeFigures)
    assert not found.leaving


async def test_figures_do_not_overtake_the_endings_that_they_count(bench: Streams) -> None:
    """An event that is on its way leaves first: the books would miss it."""
    bench.pending.refuse(Reason.BAD_REQUEST, b"")
    await Figures("edge-1", bench.broker, bench.pending).leave()
    assert [sent.envelope.kind for sent in bench.broker.notices] == [Kind.ENDED, Kind.FIGURES]


async def test_the_last_figures_say_so(bench: Streams) -> None:
    """And that the broker does not take them keeps nobody."""
    figures = Figures("edge-1", bench.broker, bench.pending)
    bench.broker.on_streams[Kind.FIGURES] = answers(UNSENT)
    await figures.leave()
    await figures.leave()
    last = decode_figures(bench.broker.told(Kind.FIGURES)[-1].body)
    assert isinstance(last, EdgeFigures)
    assert last.leaving
    assert last.at >= last.since
