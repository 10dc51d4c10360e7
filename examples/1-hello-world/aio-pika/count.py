#!/usr/bin/env python3
"""Say how many messages and consumers the queue hello has: python count.py

Run it before and after send.py and receive.py. It changes nothing.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        # passive: look, and make nothing. Without the queue it fails.
        queue = await channel.declare_queue("hello", passive=True)
        found = queue.declaration_result
        print(f" [*] Messages: {found.message_count}")
        print(f" [*] Consumers: {found.consumer_count}")


if __name__ == "__main__":
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main())
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
