"""`rabbitbal workers list`, `drain` and `resume`."""

import sys
from typing import Annotated

import typer

from rabbitbal.operator.errors import Failed
from rabbitbal.operator.reach import AsJson, ask, say, show, speak
from rabbitbal.operator.tables import printable, table
from rabbitbal.operator.telling import Voice
from rabbitbal.operator.workers import Watch, Worker, drained, names_of, resolve, workers_of
from rabbitbal.wire.envelope import Kind

app = typer.Typer(no_args_is_help=True, help="Workers and what they serve.")

WorkerName = Annotated[str, typer.Argument(metavar="WORKER", help="its id, or the beginning of it")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Workers: how many requests each runs, the pools that it serves, as pool:slots:priority, the partitions that it
    owns of sticky ones, and since when it is connected. `running` is up to ten seconds old."""
    workers = ask(workers_of)
    if as_json:
        show({"workers": [worker.shown() for worker in workers]})
        return
    rows = [[w.name, w.running, w.connected, [str(share) for share in w.shares] or "(drained)"] for w in workers]
    typer.echo(table(("worker", "running", "since", "pools"), rows))


def drain(
    worker: WorkerName,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="until it runs nothing more")] = True,
    timeout: Annotated[float, typer.Option("--timeout", min=0, max=86400, help="seconds to wait")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Let a worker take no more requests. It finishes what it has, and stays until `resume`, or until it is stopped.

    The wait takes ten seconds at least: the broker's count of what a worker has in hand may be as old.
    """
    name = _order(worker, Kind.DRAIN, "worker.draining")
    if wait:
        try:
            done = ask(lambda management: drained(management, Watch(name), timeout, _progress))
        finally:
            if sys.stderr.isatty():
                typer.echo("\r\x1b[K", err=True, nl=False)
        if not done:
            raise Failed(f"{name} was told to drain, but is not known to be idle after {timeout:g} s")
    if as_json:
        show({"worker": name, "drained": wait})
    else:
        typer.echo(printable(f"{name} is drained" if wait else f"{name} was told to drain"))


def resume(worker: WorkerName, as_json: AsJson = False) -> None:
    """Let a drained worker take requests again."""
    name = _order(worker, Kind.RESUME, "worker.resuming")
    if as_json:
        show({"worker": name, "resumed": True})
    else:
        typer.echo(printable(f"{name} was told to take requests again"))


def _order(worker: str, kind: Kind, event: str) -> str:
    """The full id of the worker that was told. Raises Failed where there is none."""
    names = ask(names_of)
    name = resolve(worker, names)

    async def tell(voice: Voice) -> tuple[bool, bool]:
        there = await voice.order(kind, name)
        return there, there and await voice.notice(event, worker=name)

    there, told = speak(tell)
    if not there:
        resolve(worker, [each for each in names if each != name])
        raise Failed(f"{name} left a moment ago")
    if not told:
        say(f"it is done, but the log could not be told ({event})")
    return name


def _progress(worker: Worker) -> None:
    if sys.stderr.isatty():
        left = "takes requests still" if worker.shares else f"runs {worker.running}"
        typer.echo(f"\r\x1b[K{printable(worker.name)} {left}", err=True, nl=False)
