#!/usr/bin/env python3
"""Send a log message to everyone who listens: python emit_log.py Disk full

Run receive_logs.py first, in as many shells as you like: who isn't there
yet won't get it.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(text: str) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        # Confirmed: the message is in every queue that is bound by now.
        channel = await connection.channel(publisher_confirms=True)
        logs = await channel.declare_exchange("logs", "fanout")
        await logs.publish(
            aio_pika.Message(
                os.fsencode(text),
                priority=4,  # normal; aio-pika's own default is lowest
            ),
            routing_key="",
            mandatory=False,  # that nobody listens is no failure of ours
        )
        print(f" [x] Sent {text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("Usage: python emit_log.py TEXT...", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(" ".join(sys.argv[1:])))
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
