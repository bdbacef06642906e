"""What belongs to no request is logged at once, and told when there is somebody to tell it to."""

import asyncio
from datetime import UTC, datetime

from structlog.testing import capture_logs

from rabbitbal.edge.news import KEPT, News
from tests.edge_bench import MemoryBroker, turns


async def test_it_is_logged_at_once_and_told_when_the_broker_is_there() -> None:
    """In the order in which it happened, with the time at which it did."""
    broker = MemoryBroker()
    broker.go_away()
    told: list[dict[str, object]] = []
    news = News(broker.wait_up, told.append)
    running = asyncio.ensure_future(news.run())
    with capture_logs() as lines:
        news.tell({"event": "routes.loaded", "digest": "a"})
        news.tell({"event": "routes.refused", "error": "routes.yaml:1:1: bad"})
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("routes.loaded", "info"),
        ("routes.refused", "warning"),
    ]
    assert lines[1]["error"] == "routes.yaml:1:1: bad"
    await turns()
    assert told == []
    come_back = datetime.now(UTC)
    broker.come_back()
    await turns()
    assert [notice["event"] for notice in told] == ["routes.loaded", "routes.refused"]
    assert datetime.fromisoformat(str(told[0]["when"])) <= come_back
    news.tell({"event": "routes.loaded", "digest": "b"})
    await turns()
    assert told[2]["digest"] == "b"
    running.cancel()


async def test_what_waits_is_bounded() -> None:
    """Of more than it keeps the newest are told."""
    broker = MemoryBroker()
    broker.go_away()
    told: list[dict[str, object]] = []
    news = News(broker.wait_up, told.append)
    running = asyncio.ensure_future(news.run())
    for number in range(KEPT + 5):
        news.tell({"event": "routes.loaded", "number": number})
    broker.come_back()
    await turns()
    assert [notice["number"] for notice in told] == list(range(5, KEPT + 5))
    running.cancel()
