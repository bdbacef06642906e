"""`rabbitbal ledger`: what the tap's books say."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.reach import AsJson, show
from rabbitbal.operator.tables import printable, table
from rabbitbal.operator.tap import ask_tap

app = typer.Typer(no_args_is_help=True, help="The tap's books: each request a debit, each ending a credit.")

SHORTEST = 6
# Of an id in a table: enough to ask for it, and it fits.
SHOWN = 12
_ID = re.compile(rf"[A-Za-z0-9_-]{{{SHORTEST},64}}")
_COLUMNS = ("debits", "credits", "open", "duplicates", "late", "unmatched", "written_off")


class By(StrEnum):
    """Kinds of accounts."""

    ROUTE = "route"
    POOL = "pool"
    WORKER = "worker"
    CLIENT = "client"


Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="rows")]


@app.command()
def balance(
    by: Annotated[By | None, typer.Option("--by", help="the accounts of a kind, the largest first")] = None,
    limit: Limit = 50,
    check: Annotated[bool, typer.Option("--check", help="count the tables anew")] = False,
    as_json: AsJson = False,
) -> None:
    """Whether debits and credits balance, and what the tap has missed."""
    parameters = {"by": by, "limit": limit, "check": "true" if check else None}
    found = _object(ask_tap(lambda tap: tap.get("api/ledger/balance", **parameters)))
    if as_json:
        show(found)
        return
    total, rows = found["total"], found.get("accounts") or []
    if by is not None:
        heads = (by.value, *(name.replace("_", " ") for name in _COLUMNS), "endings")
        typer.echo(table(heads, [[_named(row), *_figures(row), _endings(row)] for row in rows]))
        if found["of"] > len(rows):
            typer.echo(f"({len(rows)} of {found['of']})")
    else:
        heads = (*(name.replace("_", " ") for name in _COLUMNS), "endings")
        typer.echo(table(heads, [[*_figures(total), _endings(total)]]))
    typer.echo(printable(_sentence(total, found["gaps"])))
    if check:
        typer.echo(printable(_checked(total, found["counted"])))


@app.command("open")
def open_(limit: Limit = 50, as_json: AsJson = False) -> None:
    """Requests that have no ending yet, the oldest first, and who has them."""
    found = _object(ask_tap(lambda tap: tap.get("api/ledger/open", limit=limit)))
    if as_json:
        show(found)
        return
    heads = ("id", "age s", "attempt", "method", "target", "route", "edge", "pool", "worker")
    names = heads[2:]
    rows = [[e["id"][:SHOWN], e["age_ms"] / 1000, *(e[name] for name in names)] for e in found["entries"]]
    typer.echo(table(heads, rows))
    typer.echo(f"{found['open']} open" + (f"; these are {len(rows)}" if len(rows) < found["open"] else ""))


@app.command()
def explain(
    request: Annotated[str, typer.Argument(metavar="ID", help="id of a request, or six characters of its beginning")],
    as_json: AsJson = False,
) -> None:
    """All that the books know of one request."""
    if not _ID.fullmatch(request):
        raise Misused(f"{request!r} is no id: at least {SHORTEST} letters and digits")
    found = _object(ask_tap(lambda tap: tap.get(f"api/ledger/requests/{request}")))
    if as_json:
        show(found)
        return
    debit = found["debit"]
    if debit is None:
        typer.echo(printable(f"{found['id']}: its request is not in the books"))
    else:
        state = "closed" if debit["closed"] else "open"
        typer.echo(printable(f"{found['id']}: {debit['method']} {debit['target']}, {state}"))
        about = {"came": _time(debit["sent"]) or _time(debit["at"])}
        about |= {name: debit[name] for name in ("host", "client", "agent", "route", "edge", "leg") if debit[name]}
        typer.echo(printable("  " + ", ".join(f"{name} {value}" for name, value in about.items())))
    rows = [(debit["at"], _first(debit))] if debit else []
    rows += [(step["at"], _step(step)) for step in found["steps"]]
    rows += [(credit["at"], _credit(credit)) for credit in found["credits"]]
    rows.sort(key=lambda row: row[0])
    typer.echo(table(("read at", "entry", "by", "attempt", "standing", "what"), [row for _, row in rows]))
    for gap in found["gaps"]:
        typer.echo(printable(f"around that time the tap missed {_gap(gap)}"))


@app.command()
def gaps(limit: Limit = 50, as_json: AsJson = False) -> None:
    """What passed the tap by, the newest first: how much, of which edge, and why."""
    found = _object(ask_tap(lambda tap: tap.get("api/ledger/gaps", limit=limit)))
    if as_json:
        show(found)
        return
    rows = [
        [_time(g["at"]), _time(g["after"]), g["edge"], g["debits"], g["credits"], g["cause"]] for g in found["gaps"]
    ]
    typer.echo(table(("noticed", "missed after", "edge", "debits", "credits", "cause"), rows))


def _object(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise Failed("the tap's answer is not an object")
    return found


def _named(row: dict[str, Any]) -> str:
    return str(row["name"])


def _figures(row: dict[str, Any]) -> list[int]:
    return [row[name] for name in _COLUMNS]


def _endings(row: dict[str, Any]) -> list[str]:
    return [f"{ending} {number}" for ending, number in row["endings"].items()]


def _sentence(total: dict[str, Any], missed: dict[str, dict[str, int]]) -> str:
    debits, credit, written_off = total["debits"], total["credits"], total["written_off"]
    sides = f"{debits} debits, {credit} credits"
    sides += f" and {written_off} written off" if written_off else ""
    said = f"the books balance: {sides}" if not total["open"] else f"{total['open']} open: {sides}"
    lost = [sum(gap[side] for gap in missed.values()) for side in ("debits", "credits")]
    if any(lost):
        causes = ", ".join(cause for cause, gap in missed.items() if any(gap.values()))
        return f"{said}; the tap has missed {lost[0]} requests and {lost[1]} endings ({causes})"
    return f"{said}; the tap has missed nothing"


def _checked(total: dict[str, Any], counted: dict[str, int]) -> str:
    pairs = {"debits": "debits", "first": "credits", "written-off": "written_off", "duplicate": "duplicates"}
    wrong = [name for name, number in counted.items() if total[pairs.get(name, name)] != number]
    return (
        f"counted anew, the tables differ in {', '.join(wrong)}" if wrong else "counted anew, the tables say the same"
    )


def _first(debit: dict[str, Any]) -> list[object]:
    return [_clock(debit["at"]), "debit", debit["edge"], 1, None, None]


def _step(step: dict[str, Any]) -> list[object]:
    return [_clock(step["at"]), step["kind"], step["sender"], step["attempt"], None, step["pool"]]


def _credit(credit: dict[str, Any]) -> list[object]:
    what = [str(value) for value in (credit["status"], credit["reason"]) if value is not None]
    what += [f"{name} {credit[name]}" for name in ("worker", "pool") if credit[name] not in (None, credit["sender"])]
    if credit["app_us"] is not None:
        what.append(f"app {credit['app_us'] / 1000:.1f} ms")
    entry = f"credit ({credit['kind']})"
    return [_clock(credit["at"]), entry, credit["sender"], credit["attempt"], credit["standing"], ", ".join(what)]


def _gap(gap: dict[str, Any]) -> str:
    return f"{gap['debits']} requests and {gap['credits']} endings of {gap['edge']} ({gap['cause']})"


def _clock(milliseconds: int) -> str:
    """The time of the day."""
    return str(_time(milliseconds)).rpartition(" ")[2]


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(" ", "milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(milliseconds)
