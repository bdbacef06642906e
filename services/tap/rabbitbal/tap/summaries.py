"""What the page's panels show of other parts: few names, few numbers."""

from itertools import islice
from typing import Any

from rabbitbal.tap.autoscale import Autoscale
from rabbitbal.tap.depth import Depths
from rabbitbal.tap.fleet import Fleet
from rabbitbal.tap.ledger import queries
from rabbitbal.tap.ledger.books import Books

MOST_SHOWN = 40


def fleet(known: Fleet) -> dict[str, Any]:
    """Edges and workers, the first of each by name, and the sums of all for each pool."""
    workers, edges = sorted(known.workers.items()), sorted(known.edges.items())
    return {
        "workers": [
            {
                "id": name,
                "drained": worker.figures.drained,
                "streams": worker.figures.streams,
                "memory": worker.figures.memory,
                "pools": {
                    pool: {"slots": share.slots, "running": share.running}
                    for pool, share in worker.figures.pools.items()
                },
            }
            for name, worker in workers[:MOST_SHOWN]
        ],
        "more": max(0, len(workers) - MOST_SHOWN),
        "edges": [{"id": name, "pending": edge.figures.pending} for name, edge in edges[:MOST_SHOWN]],
        "pools": {
            name: {"workers": pool.workers, "slots": pool.slots, "running": pool.running}
            for name, pool in islice(sorted(known.pools().items()), MOST_SHOWN)
        },
    }


def queues(depths: Depths) -> dict[str, Any]:
    """Requests that wait, by pool, and messages that wait for the tap."""
    return {"pools": dict(islice(sorted(depths.ready.items()), MOST_SHOWN)), "log": depths.log}


def autoscale(known: Autoscale) -> dict[str, Any]:
    """Workers that each pool should have."""
    return {"pools": {name: need.desired for name, need in islice(sorted(known.needs().items()), MOST_SHOWN)}}


async def books(known: Books) -> dict[str, Any]:
    """The sums, in words of the trade. What the tap has missed is said beside them."""
    told = await known.database.ask(lambda connection: queries.balance(connection, None, 1, check=False))
    total, gaps, state = told["total"], told["gaps"], known.state()
    missed = sum(sides["debits"] + sides["credits"] for sides in gaps.values())
    rows: list[list[str]] = [
        ["Debits", f"{total['debits']:,}"],
        ["Credits", f"{total['credits']:,}"],
        ["Open", f"{total['open']:,}", "" if total["open"] else "balanced", "" if total["open"] else "good"],
    ]
    rows += [[name.capitalize(), f"{total[name]:,}"] for name in ("duplicates", "late", "unmatched") if total[name]]
    if total["written_off"]:
        rows.append(["Written off", f"{total['written_off']:,}", "requests whose ending was never seen", "failed"])
    if missed:
        rows.append(["Gaps", f"{missed:,}", "entries that the tap has missed", "refused"])
    if state["down"]:
        rows.append(["Database", "away", "the books cannot be written", "failed"])
    return {"rows": rows}
