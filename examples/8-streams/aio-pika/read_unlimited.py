#!/usr/bin/env python3
"""First draft of read.py: it forgets to limit what it is sent.

Append an event, and see the broker refuse: python read_unlimited.py
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
        queue = await channel.get_queue("events")
        async with queue.iterator() as messages:
            print(" [*] Waiting for events. To exit press CTRL+C")
            async for message in messages:
                print(f" [x] Received {os.fsdecode(message.body)!r}")
                await message.ack()
        raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
