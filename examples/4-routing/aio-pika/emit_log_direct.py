#!/usr/bin/env python3
"""Send a log message to whoever has asked for its severity.

    python emit_log_direct.py error Disk full

It is lost if nobody has: run receive_logs_direct.py first.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError, PublishError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(severity: str, text: str) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        # Raise if no queue is bound with this key. By default, publish
        # returns the message instead, and nobody looks at that.
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.declare_exchange("direct_logs", "direct")
        try:
            await exchange.publish(
                aio_pika.Message(os.fsencode(text)),
                routing_key=severity,
            )
        except PublishError:
            sys.exit(f" [!] Lost {severity!r}:{text!r}: no queue takes it")
        print(f" [x] Sent {severity!r}:{text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        usage = "Usage: python emit_log_direct.py SEVERITY MESSAGE..."
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
