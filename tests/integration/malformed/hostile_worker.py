"""Runs inside a worker's container, as the user of workers: takes requests of a pool off their queue, and answers them
as no worker would. Says, as JSON, how many."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from integration.malformed.messages import KINDS, RESPONSE, headers, payload, properties

ID = "hostile"
# The library will not say such a thing, or the broker will not take it.
UNSENDABLE = (
    aio_pika.exceptions.AMQPError,
    aio_pika.exceptions.ChannelInvalidStateError,
    ValueError,
    TypeError,
    OverflowError,
    KeyError,
    TimeoutError,
)
SEQUENCES = (0, 1, 1, 1, 2, 2, 3, 4, 7, 2**62)


async def main(seed: int, count: int, seconds: float) -> None:
    random = Random(seed)
    secret = Path(os.environ["RABBITBAL_BROKER_PASSWORD_FILE"]).read_text().strip()
    connection = await aio_pika.connect(host="rabbitmq", login="worker", password=secret)
    sent = {"replies": 0, "taken": 0, "unsendable": 0}
    consuming = await connection.channel()
    await consuming.set_qos(prefetch_count=16)
    # So that claims name somebody who is there.
    own = await consuming.declare_queue(f"worker.{ID}", exclusive=True)
    await own.bind("rabbitbal.streams", ID)
    channels: dict[str, AbstractChannel] = {}

    async def publish(exchange: str, key: str, names: dict[str, Any], fields: Any, body: bytes) -> None:
        try:
            channel = channels.get(exchange)
            if channel is None or channel.is_closed:
                # What the broker refuses closes the channel.
                channel = channels[exchange] = await connection.channel(publisher_confirms=True)
            to = await channel.get_exchange(exchange, ensure=False)
            await to.publish(aio_pika.Message(body, headers=fields, **names), key, mandatory=False, timeout=10)
            sent["replies"] += 1
        except UNSENDABLE:
            sent["unsendable"] += 1

    async def reply(name: str, reply_to: str, edge: str, attempt: Any) -> None:
        names: dict[str, Any] = {
            "type": random.choice((*KINDS, "response", "body", "body", "credit", "claim")),
            "correlation_id": name,
            "app_id": ID,
            "content_type": "message/http",
        }
        fields: dict[str, Any] = {"version": 1, "attempt": attempt}
        if random.random() < 0.3:
            fields["more"] = random.random() < 0.7
        if names["type"] == "body":
            fields |= {"sequence": random.choice(SEQUENCES), "more": random.random() < 0.7}
        if names["type"] in ("credit", "claim"):
            fields["credit"] = random.choice((0, 1, 2**16, 2**63 - 1))
        if random.random() < 0.1:
            fields["attempt"] = random.choice((1, 2, 3, 1000))
        if random.random() < 0.3:
            fields = headers(random, fields, 1)
        if random.random() < 0.15:
            names = properties(random, names)
        body = RESPONSE if names["type"] == "response" else random.choice((b"", b"x", b"y" * 65_536, b"z" * 70_000))
        if random.random() < 0.5:
            body = payload(random, body or b"x")
        key = random.choice((reply_to, reply_to, f"body.{edge}", f"body.{edge}"))
        await publish("rabbitbal.responses", key, names, fields, body)

    async def taken(message: AbstractIncomingMessage) -> None:
        sent["taken"] += 1
        for _ in range(random.randint(0, 8)):
            attempt = message.headers.get("attempt", 1)
            await reply(message.correlation_id or "", message.reply_to or "", message.app_id or "", attempt)
        ending = random.random()
        if ending < 0.1:
            await message.nack(requeue=True)
        elif ending < 0.15:
            await message.reject(requeue=False)
        else:
            await message.ack()

    pool = await consuming.get_queue("pool.default", ensure=False)
    await pool.consume(taken)
    edges = sys.argv[4:]
    until = time.monotonic() + seconds
    while time.monotonic() < until or sent["replies"] < count:
        # Nobody's requests, too, and letters to the dead.
        name = random.choice(("", "x", f"{random.getrandbits(128):032x}"))
        edge = random.choice(edges)
        await reply(name, f"response.{edge}", edge, 1)
        if random.random() < 0.05:
            await publish("rabbitbal.dead", "", {}, headers(random, {}, 1) | {"error": "made up"}, b"x")
    await connection.close()
    print(json.dumps(sent))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
