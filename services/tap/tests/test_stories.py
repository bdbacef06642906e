"""The newest requests and what happened to them: in whatever order it is told, and bounded."""

from typing import Any

import httpx
import pytest

from rabbitbal.tap import web
from rabbitbal.tap.access_log import AccessLog
from rabbitbal.tap.observation import observe
from rabbitbal.tap.redaction import Redactor
from rabbitbal.tap.stories import Stories, router
from rabbitbal.wire.envelope import Envelope, Kind, Leg
from rabbitbal.wire.message import Request, Response, encode_request, encode_response
from rabbitbal.wire.reasons import Reason, status_of


class Tap:
    """Access lines and stories, as the tap has them."""

    def __init__(self, limit: int = 100) -> None:
        self.access = AccessLog(1000, Redactor())
        self.stories = Stories(limit)

    def see(self, kind: Kind, name: str, at: int, payload: bytes = b"", **more: Any) -> None:
        by = more.pop("by", "edge-1" if kind in (Kind.REQUEST, Kind.ENDED) else "worker-1")
        envelope = Envelope(kind, name, by, sent=at, **more)
        seen = observe(at / 1000, envelope, payload, None, redelivered=False)
        seen.line = self.access.see(seen)
        self.stories.see(seen)

    def ask(self, name: str, at: int = 1000, target: bytes = b"/", **more: Any) -> None:
        payload = encode_request(Request("GET", target, [(b"X-Forwarded-For", b"203.0.113.7")], b""))
        self.see(Kind.REQUEST, name, at, payload, reply_to="response.edge-1", **({"route": "default"} | more))

    def answer(self, name: str, at: int = 1050, status: int = 200, **more: Any) -> None:
        payload = encode_response(Response(status, [], b"fine"))
        self.see(Kind.RESPONSE, name, at, payload, **({"pool": "default", "duration": 30_000} | more))


@pytest.fixture
def tap() -> Tap:
    return Tap()


async def get(tap: Tap, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(web.build([router(tap.stories)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://dashboard") as client:
        return await client.get(path)


async def test_a_story_tells_each_step_with_its_time(tap: Tap) -> None:
    """A claimed request whose worker is lost, and the second attempt."""
    tap.ask("aa11")
    tap.see(Kind.CLAIM, "aa11", 1100)
    tap.see(Kind.REDELIVERED, "aa11", 1500, by="worker-2")
    tap.ask("aa11", 1510, attempt=2)
    tap.answer("aa11", 1600, attempt=2, by="worker-2")
    story = (await get(tap, "/api/requests/aa11")).json()
    assert [(step["what"], step["at"], step["attempt"]) for step in story["steps"]] == [
        ("published", 1000, 1),
        ("claim", 1100, 1),
        ("redelivered", 1500, 1),
        ("published", 1510, 2),
        ("response", 1600, 2),
    ]
    assert story["steps"][-1]["app_ms"] == 30
    assert (story["status"], story["worker"], story["attempt"]) == (200, "worker-2", 2)
    assert (story["total_ms"], story["ended"]) == (600, True)


async def test_a_request_that_runs_has_a_story_without_an_ending(tap: Tap) -> None:
    """It is found by its id, and is in no list of ended ones."""
    tap.ask("aa11")
    assert (await get(tap, "/api/requests/aa11")).json()["ended"] is False
    assert (await get(tap, "/api/requests")).json()["requests"] == []


async def test_a_request_that_came_to_no_pool_has_a_story(tap: Tap) -> None:
    """Its ending brings it along; the time that it took tells when it began."""
    payload = encode_request(Request("GET", b"/nowhere", [], b""))
    reason = Reason.UNROUTABLE
    tap.see(Kind.ENDED, "aa11", 3000, payload, reason=reason, status=status_of(reason), duration=2_000_000)
    story = (await get(tap, "/api/requests/aa11")).json()
    assert (story["began"], story["target"], story["reason"]) == (1000, "/nowhere", "unroutable")


async def test_a_message_that_comes_again_is_no_second_step(tap: Tap) -> None:
    """After a broken connection the broker brings it once more."""
    tap.ask("aa11")
    tap.answer("aa11")
    tap.ask("aa11")
    tap.answer("aa11")
    assert len((await get(tap, "/api/requests/aa11")).json()["steps"]) == 2
    assert tap.stories.ended == 1


async def test_the_start_of_an_id_is_enough_where_it_names_one(tap: Tap) -> None:
    """More than one is a conflict, none is not found, and what cannot be an id is refused."""
    for name in ("abc1", "abc2", "b111", "b1"):
        tap.ask(name)
    assert (await get(tap, "/api/requests/abc1")).json()["id"] == "abc1"
    assert (await get(tap, "/api/requests/b11")).json()["id"] == "b111"
    # An id of its own that another begins with.
    assert (await get(tap, "/api/requests/b1")).json()["id"] == "b1"
    ambiguous = await get(tap, "/api/requests/abc")
    assert (ambiguous.status_code, "more of its id" in ambiguous.json()["detail"]) == (409, True)
    assert (await get(tap, "/api/requests/zzz")).status_code == 404
    assert (await get(tap, "/api/requests/a%0ab")).status_code == 422


async def test_the_oldest_is_forgotten() -> None:
    """With all that was remembered of it."""
    tap = Tap(limit=3)
    for number in range(10):
        tap.ask(f"id{number}")
        tap.answer(f"id{number}")
    assert len(tap.stories) == 3
    found = (await get(tap, "/api/requests")).json()
    assert [request["id"] for request in found["requests"]] == ["id9", "id8", "id7"]
    assert found["remembered"] == 3
    assert (await get(tap, "/api/requests/id0")).status_code == 404


def test_texts_and_steps_are_bounded() -> None:
    """Whoever sends without end fills no memory."""
    tap = Tap()
    tap.ask("aa11", target=b"/" + b"x" * 5000, route="r" * 5000)
    for at in range(200):
        tap.see(Kind.CLAIM, "aa11", 2000 + at, by="w" * 5000)
    tap.answer("aa11", 3000, by="w" * 5000)
    story = tap.stories.find("aa11")[0]
    assert len(story.steps) <= 24
    assert len(str(story.whole())) < 8000


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("status=404", ["c"]),
        ("status=4xx", ["c"]),
        ("status=failed", ["d"]),
        ("route=other", ["b"]),
        ("reason=app-error", ["d"]),
        ("client=203.0.113.7&limit=2", ["d", "c"]),
        ("client=nobody", []),
        ("q=SHOP", ["b"]),
        ("q=worker-9", ["c"]),
    ],
)
async def test_recent_requests_are_found_by_what_they_are(tap: Tap, query: str, names: list[str]) -> None:
    """All conditions must hold; the newest come first."""
    tap.ask("a")
    tap.answer("a")
    tap.ask("b", target=b"/shop?x=1", route="other")
    tap.answer("b")
    tap.ask("c")
    tap.answer("c", status=404, by="worker-9")
    tap.ask("d")
    tap.answer("d", status=500, reason=Reason.APP_ERROR)
    found = await get(tap, f"/api/requests?{query}")
    assert [request["id"] for request in found.json()["requests"]] == names


@pytest.mark.parametrize("query", ["status=abc", "status=99", "limit=0", "limit=100000", "q=" + "x" * 200])
async def test_a_bad_question_is_refused(tap: Tap, query: str) -> None:
    """With the status that says so, and no search."""
    assert (await get(tap, f"/api/requests?{query}")).status_code == 422


async def test_copies_know_each_other(tap: Tap) -> None:
    """By their group."""
    tap.ask("a", leg=Leg.PRIMARY, group="g1")
    tap.ask("b", leg=Leg.SHADOW, group="g1")
    tap.ask("c")
    for name in "abc":
        tap.answer(name)
    copies = (await get(tap, "/api/requests/a")).json()["copies"]
    assert [(copy["id"], copy["leg"]) for copy in copies] == [("b", "shadow")]
    assert (await get(tap, "/api/requests/c")).json()["copies"] == []


async def test_a_target_has_lost_its_secrets(tap: Tap) -> None:
    """The story has the access line's target, and nothing of the message's own."""
    tap.ask("a", target=b"/login?password=hunter2")
    tap.answer("a")
    assert "hunter2" not in (await get(tap, "/api/requests/a")).text
