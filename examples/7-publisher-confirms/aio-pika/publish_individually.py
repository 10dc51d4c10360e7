"""Publish, one after the other: python publish_individually.py 2000"""

import asyncio
import logging
import os
import signal
import sys
from time import monotonic

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = "confirmed_events"


async def main(count: int) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue(
            QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )
        done, start = 0, monotonic()
        try:
            for body in (f"event {n}".encode() for n in range(1, count + 1)):
                event = aio_pika.Message(body, delivery_mode=2, priority=4)
                await channel.default_exchange.publish(event, QUEUE)
                done += 1
        finally:
            spent = monotonic() - start
            print(f" [x] Confirmed {done} of {count} in {spent:.3f} s")


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].isdecimal():
        sys.exit("Usage: python publish_individually.py [COUNT]")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
