#!/usr/bin/env python3
"""Read the stream `events` from the first, last or next one, or an offset.

python read.py first
"""

import asyncio
import logging
import os
import re
import sys

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


async def main(start: str | int) -> None:
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
        await queue.consume(inbox.put, arguments={"x-stream-offset": start})
        print(" [*] Waiting for events. To exit press CTRL+C")
        while message := await inbox.get():
            offset = message.headers["x-stream-offset"]
            text = os.fsdecode(message.body)
            print(f" [x] Received {text!r} at offset {offset}")
            # This removes nothing, but lets the broker send another one.
            await message.ack()
        raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    start = sys.argv[1] if len(sys.argv) == 2 else ""
    if not re.fullmatch(r"first|last|next|\d{1,18}", start):
        print("Usage: python read.py first|last|next|OFFSET", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(int(start) if start.isdecimal() else start))
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
