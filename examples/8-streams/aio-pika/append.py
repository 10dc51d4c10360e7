"""Append an event to the stream `events`: python append.py First event"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
# The oldest events go when there is a gigabyte of them.
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


async def main(event: str) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        # publish waits for the broker's word; so, no such stream is an error.
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue("events", durable=True, arguments=STREAM)
        await channel.default_exchange.publish(
            aio_pika.Message(os.fsencode(event)), routing_key="events"
        )
        print(f" [x] Sent {event!r}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Usage: python append.py EVENT...")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main(" ".join(sys.argv[1:])))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
