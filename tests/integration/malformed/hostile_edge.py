"""Runs inside an edge's container, as the user of edges: requests and notices that no edge would send. Says, as JSON,
how many of each."""

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

from integration.malformed.messages import (
    BAD_HEADERS,
    BAD_PAYLOADS,
    BAD_PROPERTIES,
    KINDS,
    REQUEST,
    headers,
    payload,
    properties,
    request_headers,
)

ID, KEY = "hostile", "response.hostile"
GOOD = {"type": "request", "correlation_id": "c0ffee", "app_id": ID, "reply_to": KEY, "content_type": "message/http"}
LOST = "nobody-has-it"
AT_ONCE = 20


async def main(seed: int, count: int, notices: int, workers: list[str]) -> None:
    random = Random(seed)
    secret = Path(os.environ["RABBITBAL_BROKER_PASSWORD_FILE"]).read_text().strip()
    connection = await aio_pika.connect(host="rabbitmq", login="edge", password=secret)
    sent = {"malformed": 0, "odd": 0, "notices": 0, "events": 0, "unsendable": 0}
    channel = await connection.channel(publisher_confirms=True)
    pools = await channel.get_exchange("rabbitbal.requests", ensure=False)
    streams = await channel.get_exchange("rabbitbal.streams", ensure=False)
    events = await channel.get_exchange("rabbitbal.events", ensure=False)
    responses = await channel.get_exchange("rabbitbal.responses", ensure=False)
    queue = await channel.declare_queue("edge.hostile", exclusive=True)
    for key in (KEY, f"body.{ID}"):
        await queue.bind(responses, key)
    claimed: dict[str, str] = {}

    async def replied(message: AbstractIncomingMessage) -> None:
        if message.type == "claim" and message.correlation_id and message.app_id:
            claimed[message.correlation_id] = message.app_id

    await queue.consume(replied, no_ack=True)

    async def publish(to: AbstractExchange, key: str, names: dict[str, Any], fields: Any, body: bytes) -> bool:
        while True:
            try:
                message = aio_pika.Message(body, headers=fields, expiration=5, **names)
                await to.publish(message, key, mandatory=False, timeout=10)
                return True
            except aio_pika.exceptions.DeliveryError:
                # A full queue. There is room again soon: workers set such messages aside.
                await asyncio.sleep(0.05)
            except (ValueError, TypeError, OverflowError, KeyError, TimeoutError):
                # The library will not say such a thing; another one might.
                return False

    # --- requests that are malformed beyond doubt, and requests that may be
    bad = [({**GOOD, **change}, request_headers(), REQUEST) for change in BAD_PROPERTIES]
    bad += [(GOOD, request_headers() | change, REQUEST) for change in BAD_HEADERS]
    bad += [(GOOD, request_headers(), text) for text in BAD_PAYLOADS]
    for number in range(count):
        if number % 2:
            names, fields, body = random.choice(bad)
            fields = {
                **request_headers(),
                **{k: v for k, v in fields.items() if k != "deadline" or v is None or v == "soon"},
            }
            kind = "malformed"
        else:
            names, fields, body = (
                {**GOOD, "correlation_id": f"{random.getrandbits(128):032x}"},
                request_headers(),
                REQUEST,
            )
            if random.random() < 0.5:
                names = properties(random, names)
            if random.random() < 0.8:
                fields = headers(random, fields, random.choice((1, 2, 4)))
            if random.random() < 0.6:
                body = payload(random, body)
            kind = "odd"
        sent[kind if await publish(pools, "request.default", names, fields, body) else "unsendable"] += 1

    # --- notices about requests that run, or do not
    def held(number: int) -> tuple[dict[str, Any], dict[str, Any], bytes]:
        name = f"{random.getrandbits(128):032x}"
        more = {} if number % 2 else {"more": True, "credit": random.choice((0, 256, 65_536, 2**63 - 1))}
        upgrade = {"upgrade": "websocket"} if number % 5 == 0 else {}
        head = b"POST /probe/hold?key=hostile HTTP/1.1\r\nHost: a\r\n\r\n"
        if number % 3 == 0:
            head = b"POST /probe/mirror HTTP/1.1\r\nHost: a\r\n\r\n"
        return {**GOOD, "correlation_id": name}, {**request_headers(), **more, **upgrade}, head

    running: list[str] = []
    number = 0
    while number < notices:
        if number % 150 == 0:
            for each in range(AT_ONCE // 4):
                names, fields, body = held(each)
                if await publish(pools, "request.default", names, fields, body):
                    running.append(names["correlation_id"])
            # Those that run longer are claimed; then it is known who runs them.
            until = time.monotonic() + 1
            while time.monotonic() < until and not set(running[-AT_ONCE // 4 :]) & set(claimed):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        name = random.choice([*running[-AT_ONCE:], LOST])
        key = random.choice([claimed.get(name, "*"), *workers, "*"])
        names = {"type": random.choice(KINDS), "correlation_id": name, "app_id": ID}
        fields = {"version": 1, "attempt": 1}
        shape = random.randrange(5)
        if shape == 0:
            names = {**names, "type": "body"}
            fields |= {"sequence": random.choice((0, 1, 1, 2, 3, 9, 2**62, -1)), "more": random.random() < 0.8}
        elif shape == 1:
            names = {**names, "type": "credit"}
            fields |= {"credit": random.choice((0, 1, 2**16, 2**63 - 1, -5))}
        elif shape == 2:
            fields = headers(random, fields)
        elif shape == 3:
            names = properties(random, names)
        body = random.choice((b"", b"x", REQUEST, random.randbytes(100), b"x" * 70_000))
        sent["notices" if await publish(streams, key, names, fields, body) else "unsendable"] += 1
        number += 1
        if number % 4 == 0:
            fields = headers(
                random, {"version": 1, "attempt": 1, "status": 200, "reason": "worker-lost", "duration": 1, "sent": 1}
            )
            names = properties(random, {**GOOD, "type": "ended"})
            done = await publish(events, "ended.hostile", names, fields, payload(random, REQUEST))
            sent["events" if done else "unsendable"] += 1
    await connection.close()
    print(json.dumps(sent | {"held": len(running), "claimed": len(claimed)}))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
