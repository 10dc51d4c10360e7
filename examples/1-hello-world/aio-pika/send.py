#!/usr/bin/env python3
"""Send one message to the queue hello: python send.py

It waits in the broker until receive.py takes it.
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
        # publish waits until the broker says that it has the message; with
        # this argument it fails if there is no such queue.
        channel = await connection.channel(on_return_raises=True)
        # The receiver declares it, too: whoever comes first makes the queue.
        await channel.declare_queue(
            "hello", durable=True, arguments={"x-queue-type": "quorum"}
        )
        text = "Hello World!"
        await channel.default_exchange.publish(
            aio_pika.Message(
                text.encode(),
                priority=4,  # normal; aio-pika's own default is lowest
            ),
            routing_key="hello",
        )
        print(f" [x] Sent {text!r}")


if __name__ == "__main__":
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main())
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
