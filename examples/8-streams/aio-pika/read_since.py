#!/usr/bin/env python3
"""Read the stream `events` from some time ago on: python read_since.py 5m"""

import asyncio
import logging
import os
import re
import sys
from datetime import UTC, datetime

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def parse(since: str) -> str | datetime:
    if re.fullmatch(r"[1-9]\d{0,3}[YMDhms]", since):  # M: month, m: minute
        return since
    moment = datetime.fromisoformat(since).timestamp()
    return datetime.fromtimestamp(max(0, moment), UTC)


async def main(since: str | datetime) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)  # without, it is refused
        queue = await channel.declare_queue(
            "events", durable=True, arguments=STREAM
        )
        inbox: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        channel.close_callbacks.add(lambda *_: inbox.put_nowait(None))
        amqp = await channel.get_underlay_channel()  # told of a deleted queue
        amqp.on_consumer_cancel_callbacks.add(lambda _: inbox.put_nowait(None))
        await queue.consume(inbox.put, arguments={"x-stream-offset": since})
        print(" [*] Waiting for events. To exit press CTRL+C")
        while message := await inbox.get():
            offset = message.headers["x-stream-offset"]
            text = os.fsdecode(message.body)
            print(f" [x] Received {text!r} at offset {offset}")
            await message.ack()
        raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        since = parse(" ".join(sys.argv[1:]))
    except ValueError:
        print("Usage: python read_since.py 5m|7D|2026-11-21", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(since))
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
