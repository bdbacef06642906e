"""`rabbitbal replay`: what was recorded, sent to a pool again, and the answers beside those of then."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rabbitbal.operator import choice
from rabbitbal.operator.caller import Answer, Caller
from rabbitbal.operator.connection import calling
from rabbitbal.operator.difference import Comparison, Given, Rules, compare
from rabbitbal.operator.errors import Failed
from rabbitbal.operator.pools import existing, pools_of
from rabbitbal.operator.reach import AsJson, ask, record, say, show
from rabbitbal.operator.recordings import load
from rabbitbal.operator.replaying import Course, Pace, pace, run
from rabbitbal.operator.settings import Settings
from rabbitbal.operator.tables import printable, table
from rabbitbal.operator.tally import MOST_SHOWN, Tally
from rabbitbal.runtime.settings import read
from rabbitbal.wire.fields import Fields
from rabbitbal.wire.recording import Exchange


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what `record` wrote, or a HAR; - is standard input")],
    pool: Annotated[str, typer.Option("--pool", help="the pool that answers")],
    rate: Annotated[str, typer.Option("--rate", help="2x: twice as fast as recorded; 50/s; max")] = "1x",
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=1000, help="most in flight")] = 64,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="'Name: value', set anew")] = None,
    host: Annotated[str | None, typer.Option("--host", help="name of the host, set anew")] = None,
    methods: Annotated[str | None, typer.Option("--methods", help="[default: those that are safe]")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, max=3600, help="seconds for each")] = 30.0,
    diff: Annotated[bool, typer.Option("--diff", help="show what differs")] = False,
    ignore: Annotated[list[str] | None, typer.Option("--ignore", help="a field not to compare")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="the fields to compare, and no others")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="the first so many of the file")] = None,
    as_json: AsJson = False,
) -> None:
    """Send recorded requests to a pool, and compare its answers with the recorded ones.

    Status 0: all the same; 1: some differ or failed, or it was interrupted; 2: misuse. By default requests are sent at
    the times at which they came then, and only those with safe methods (GET, HEAD, OPTIONS, TRACE): what others did
    then, they do again. What was redacted, like Authorization, is sent as `[redacted]` unless --header sets it.
    """
    wanted = choice.methods(methods)
    chosen_pace, fields = pace(rate), choice.headers(header or [])
    rules = Rules(_names(ignore) or frozenset(), _names(only))
    exchanges, left = choice.chosen(load(file, limit), wanted)
    _say_methods(left, wanted)
    known = existing(pool, ask(pools_of))
    if not known.workers:
        raise Failed(f"{pool} has no workers: nothing was sent")
    play = Replay(pool, fields, host, timeout, rules, Tally(left), details=diff)
    if exchanges:
        say(f"replaying {len(exchanges)} request{'' if len(exchanges) == 1 else 's'} to {pool}; Ctrl-C ends it")
        course = asyncio.run(play.run(exchanges, chosen_pace, concurrency))
        record("pool.replayed", pool=pool, requests=course.sent, failed=play.tally.failed.total())
    else:
        course = Course()
        say("there is nothing to replay")
    _say_course(course, concurrency)
    if as_json:
        show(play.shown(course))
    else:
        _print(play, course)
    if not play.tally.well or course.interrupted:
        sys.exit(1)


class Replay:
    """One run: calls, compares, counts."""

    def __init__(
        self, pool: str, fields: Fields, host: str | None, timeout: float, rules: Rules, tally: Tally, *, details: bool
    ) -> None:
        self.pool = pool
        self.tally = tally
        self.details: list[tuple[Exchange, Comparison]] = []
        self._fields = fields
        self._host = host
        self._timeout = timeout
        self._rules = rules
        self._wanted = details

    async def run(self, exchanges: Sequence[Exchange], pace: Pace, concurrency: int) -> Course:
        """Until the last answer, or Ctrl-C. Raises Failed."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with calling(read(Settings).replayer(), self.pool) as caller:
            times = [exchange.when / 1000 for exchange in exchanges]
            return await run(exchanges, times, pace, concurrency, lambda each: self._one(caller, each), stop)

    async def _one(self, caller: Caller, exchange: Exchange) -> None:
        request = choice.anew(exchange.request, self._fields, self._host)
        repeatable = request.method in choice.IDEMPOTENT
        self._count(exchange, await caller.call(request, repeatable=repeatable, timeout=self._timeout))

    def _count(self, exchange: Exchange, answer: Answer) -> None:
        tally = self.tally
        if answer.response is None:
            tally.failed[answer.reason or "no answer"] += 1
            return
        for values, value in (
            (tally.recorded_ms, exchange.total_ms),
            (tally.replayed_ms, answer.total_ms),
            (tally.recorded_app_ms, exchange.app_ms),
            (tally.replayed_app_ms, answer.app_ms),
        ):
            if value is not None:
                values.append(value)
        if exchange.response is None:
            tally.uncompared += 1
            return
        found = compare(exchange, Given(answer.response, answer.size, answer.sha256), self._rules)
        tally.compared(found)
        if self._wanted and found.differences and len(self.details) < MOST_SHOWN:
            self.details.append((exchange, found))

    def shown(self, course: Course) -> dict[str, Any]:
        shown = {"pool": self.pool, **self.tally.shown(), "interrupted": course.interrupted, "late": course.late}
        shown["seconds"] = round(course.seconds, 3)
        if self._wanted:
            shown["differences"] = [
                {
                    "id": exchange.id,
                    "method": exchange.request.method,
                    "target": exchange.request.target.decode("latin-1"),
                    "differences": [difference.shown() for difference in found.differences],
                }
                for exchange, found in self.details
            ]
        return shown


def _names(texts: list[str] | None) -> frozenset[bytes] | None:
    if not texts:
        return None
    return frozenset(name.strip().lower().encode() for text in texts for name in text.split(","))


def _say_methods(left: dict[str, int], wanted: frozenset[str]) -> None:
    others = {name: number for name, number in left.items() if name.isupper() and name not in choice.SAFE}
    if others and wanted == choice.SAFE:
        told = ", ".join(f"{name} {number}" for name, number in others.items())
        say(f"left out, as they may change something: {told}. --methods names those that are to be sent")
    if unsafe := sorted(wanted - choice.SAFE):
        say(f"{', '.join(unsafe)}: what these requests did when they were recorded, they do again")


def _say_course(course: Course, concurrency: int) -> None:
    if course.late:
        say(
            f"{course.late} of {course.sent} requests were sent late, by up to {course.behind:.1f} s: "
            f"{concurrency} were in flight (--concurrency), or this machine could not keep up"
        )
    if course.interrupted:
        say(f"interrupted after {course.sent} requests; workers were told to stop what was in flight")


def _print(play: Replay, course: Course) -> None:
    tally = play.tally
    for exchange, found in play.details:
        request = exchange.request
        typer.echo(printable(f"{request.method} {request.target.decode('latin-1')}  ({exchange.id})"))
        for difference in found.differences:
            if difference.lines:
                typer.echo(f"    {difference.kind}")
                for line in difference.lines:
                    typer.echo(f"      {printable(line)}")
                continue
            was, now = printable(difference.recorded), printable(difference.replayed)
            name = "" if difference.name == difference.kind else f" {printable(difference.name)}"
            typer.echo(f"    {difference.kind}{name}: {was} → {now}")
    if len(play.details) < tally.different and play.details:
        typer.echo(f"… and {tally.different - len(play.details)} more")
    typer.echo(table(("requests", "number", "of which"), tally.rows()))
    typer.echo()
    typer.echo(table(("latency", "p50 ms", "p95 ms", "p99 ms"), [[name, *values] for name, values in tally.latency()]))
    if course.seconds:
        typer.echo(f"\n{course.sent} sent in {course.seconds:.1f} s, {course.sent / course.seconds:.0f}/s")
