#!/usr/bin/env python3
"""Append an event to the stream `events`: python append.py First event

It stays there, however often it is read: run read.py, as often as you like.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, DeliveryError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
# The oldest events go when there is a gigabyte of them.
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


async def main(event: str) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        # publish returns once the stream has the event, or raises.
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue("events", durable=True, arguments=STREAM)
        try:
            await channel.default_exchange.publish(
                aio_pika.Message(os.fsencode(event)), routing_key="events"
            )
        except DeliveryError:
            sys.exit(f" [!] Not sent {event!r}: the broker refused it")
        print(f" [x] Sent {event!r}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("Usage: python append.py EVENT...", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(" ".join(sys.argv[1:])))
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
