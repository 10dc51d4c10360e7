"""Publish, at most 100 unconfirmed: python publish_asynchronously.py 2000"""

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import suppress

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = "confirmed_events"
WINDOW = 100


async def main(count: int) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue(
            QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )
        numbers = iter(range(1, count + 1))
        confirmed: list[int] = []

        async def publish() -> None:
            for number in numbers:  # the next that nobody has taken
                body = f"event {number}".encode()
                event = aio_pika.Message(body, delivery_mode=2, priority=4)
                # Refused or returned: the others are stored all the same.
                with suppress(aio_pika.exceptions.DeliveryError):
                    await channel.default_exchange.publish(event, QUEUE)
                    confirmed.append(number)

        start = time.monotonic()
        try:
            await asyncio.gather(*(publish() for _ in range(WINDOW)))
        finally:
            done, spent = len(confirmed), time.monotonic() - start
            print(f" [x] Confirmed {done} of {count} in {spent:.3f} s")
        if done < count:
            sys.exit(f"Failed: {count - done} refused or returned")


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].isdecimal():
        sys.exit("Usage: python publish_asynchronously.py [COUNT]")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
