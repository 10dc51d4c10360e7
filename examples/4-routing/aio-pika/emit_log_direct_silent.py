#!/usr/bin/env python3
"""First draft of emit_log_direct.py: it does not hear of a lost message.

Nobody has to be there: python emit_log_direct_silent.py error Disk full
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(severity: str, text: str) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        # Both sides declare the exchange, so it does not matter who is first.
        exchange = await channel.declare_exchange("direct_logs", "direct")
        await exchange.publish(
            aio_pika.Message(os.fsencode(text)),
            routing_key=severity,
        )
        print(f" [x] Sent {severity!r}:{text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        usage = "Usage: python emit_log_direct_silent.py SEVERITY MESSAGE..."
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
