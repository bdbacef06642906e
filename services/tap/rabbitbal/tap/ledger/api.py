"""The books over HTTP, read only."""

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, HTTPException, Path, Query
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from rabbitbal.tap.ledger import queries
from rabbitbal.tap.ledger.books import Books
from rabbitbal.tap.ledger.database import Slow

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=1000)]


def router(books: Books | None) -> APIRouter:
    """``books`` is None where the ledger is turned off."""
    routes = APIRouter(prefix="/api/ledger")

    async def ask(question: Callable[[Connection], T]) -> T:
        if books is None:
            raise HTTPException(404, "there is no ledger: RABBITBAL_LEDGER_URL is none")
        try:
            return await books.database.ask(question)
        except Slow as error:
            raise HTTPException(503, str(error)) from error
        except queries.Ambiguous as error:
            raise HTTPException(409, str(error)) from error
        except SQLAlchemyError as error:
            # What the database says may hold requests of clients.
            raise HTTPException(503, "the ledger's database cannot be asked; the tap's log says why") from error

    @routes.get("/balance")
    async def balance(
        by: Annotated[Literal["route", "pool", "worker", "client"] | None, Query()] = None,
        limit: Limit = 50,
        check: bool = False,
    ) -> dict[str, Any]:
        """Sums over all requests, and the largest accounts of a kind. `check` counts the tables anew."""
        found = await ask(lambda connection: queries.balance(connection, by, limit, check=check))
        return found | ({} if books is None else {"ledger": books.state()})

    @routes.get("/open")
    async def open_(limit: Limit = 100) -> dict[str, Any]:
        """Requests without an ending, oldest first."""
        now = int(time.time() * 1000)
        return await ask(lambda connection: queries.open_entries(connection, limit, now))

    @routes.get("/requests/{name}")
    async def one(name: Annotated[str, Path(pattern=rf"^[\w-]{{{queries.SHORTEST},64}}$")]) -> dict[str, Any]:
        """Debit, steps and credits of a request. Six characters of its id do where no other begins so."""
        found = await ask(lambda connection: queries.story(connection, name))
        if found is None:
            raise HTTPException(404, f"no request in the ledger begins with {name}")
        return found

    @routes.get("/gaps")
    async def gaps(limit: Limit = 100) -> dict[str, Any]:
        """What the tap has missed, newest first."""
        return {"gaps": await ask(lambda connection: queries.gaps(connection, limit))}

    return routes
