#!/usr/bin/env python3
"""Publish a message to a queue, and say what the broker made of it.

Confirmed, returned or nacked: python publish_or_explain.py QUEUE MESSAGE...
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, DeliveryError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(queue: str, text: str) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        # Without this, a message that comes back raises nothing.
        channel = await connection.channel(on_return_raises=True)
        message = aio_pika.Message(
            os.fsencode(text),
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            priority=4,  # normal; aio-pika's own default is lowest
        )
        try:
            await channel.default_exchange.publish(message, queue)
        except aio_pika.exceptions.PublishError as error:
            sys.exit(f" [!] Returned {text!r}: {error.args[0]}")
        except DeliveryError:
            sys.exit(f" [!] Nacked {text!r}: {queue} refuses it")
        print(f" [x] Confirmed {text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        usage = "Usage: python publish_or_explain.py QUEUE MESSAGE..."
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
