#!/usr/bin/env python3
"""Publish a message to a queue, with nothing but the client's defaults.

Mistype the queue's name: python publish_by_default.py QUEUE MESSAGE...
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(queue: str, text: str) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        message = aio_pika.Message(os.fsencode(text))
        await channel.default_exchange.publish(message, queue)
        print(f" [x] Sent {text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        usage = "Usage: python publish_by_default.py QUEUE MESSAGE..."
        print(usage, file=sys.stderr)
        sys.exit(2)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(sys.argv[1], " ".join(sys.argv[2:])))
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
