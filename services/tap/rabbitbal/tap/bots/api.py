"""Suspects and reasons, over HTTP and for the page."""

import time
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query

from rabbitbal.tap.bots.history import Count
from rabbitbal.tap.bots.scorer import Scorer
from rabbitbal.wire.verdicts import Verdict

MOST_SHOWN = 100
_ON_THE_PAGE = 8


def panel(scorer: Scorer) -> dict[str, Any]:
    """For the page: the newest suspects, each with its strongest reason."""
    found = scorer.suspects(time.time())
    rows = [[one.client, f"{one.score:.2f}", one.reasons[0], "failed"] for one in found[:_ON_THE_PAGE]]
    return {"rows": rows, "suspects": len(found)}


def router(scorer: Scorer) -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/bots")
    async def bots(limit: Annotated[int, Query(ge=1, le=1000)] = MOST_SHOWN) -> dict[str, Any]:
        """The suspects with what speaks against them, the newest first, and crawlers that say whose they are."""
        found = scorer.suspects(time.time())
        return {
            "suspects": [_shown(verdict) for verdict in found[:limit]],
            "all_suspects": len(found),
            "crawlers": [{"client": client, "name": agent.name} for client, agent in islice(scorer.crawlers(), limit)],
            "clients": len(scorer),
            "forgotten": scorer.forgotten,
            "threshold": scorer.threshold,
            "window": scorer.window,
        }

    @routes.get("/api/bots/{client}")
    async def one(client: Annotated[str, Path(pattern=r"^[0-9A-Fa-f.:]{2,45}$")]) -> dict[str, Any]:
        """What is thought of a client, what was counted of it, and what each signal adds."""
        verdict, judged = scorer.verdict(client, time.time()), scorer.look(client)
        if verdict is None or judged is None:
            raise HTTPException(404, f"no client {client} is among the {len(scorer)} that are remembered")
        return _shown(verdict) | {
            "now": round(judged.score, 3),
            "agent": judged.facts.agent,
            "calling": judged.agent.calling.value,
            "seconds": round(judged.facts.span, 1),
            "counts": {count.name.lower(): judged.facts[count] for count in Count} | {"paths": judged.facts.paths},
            "signals": [
                {"signal": one.signal, "part": round(one.part, 3), "text": one.text} for one in judged.findings
            ],
        }

    return routes


def _shown(verdict: Verdict) -> dict[str, Any]:
    return {
        "client": verdict.client,
        "kind": verdict.kind.value,
        "score": verdict.score,
        "reasons": list(verdict.reasons),
        "since": verdict.since,
        "until": verdict.until,
    }
