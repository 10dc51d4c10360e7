#!/usr/bin/env python3
"""Send a log message under a key of several words, like kern.critical.

    python emit_log_topic.py kern.critical Disk full

It is lost if nobody has asked for such: run receive_logs_topic.py first.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError, PublishError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(routing_key: str, text: str) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        # Raise if no binding matches; by default, publish returns quietly.
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.declare_exchange("topic_logs", "topic")
        try:
            await exchange.publish(
                aio_pika.Message(os.fsencode(text)),
                routing_key=routing_key,
            )
        except PublishError:
            sys.exit(f" [!] Lost {routing_key!r}:{text!r}: no queue takes it")
        print(f" [x] Sent {routing_key!r}:{text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        usage = "Usage: python emit_log_topic.py ROUTING_KEY MESSAGE..."
        print(usage, file=sys.stderr)
        sys.exit(2)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(sys.argv[1], " ".join(sys.argv[2:])))
    except (AMQPError, OSError, RuntimeError, TypeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
