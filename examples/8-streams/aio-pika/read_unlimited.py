"""First draft of read.py, which is refused: python read_unlimited.py"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        queue = await channel.declare_queue(
            "events", durable=True, arguments=STREAM
        )
        print(" [*] Waiting for events. To exit press CTRL+C")
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):
            async for event in queue.iterator():
                print(f" [x] Received {os.fsdecode(event.body)!r}")
                await event.ack()
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main())
    except (aio_pika.exceptions.AMQPError, TimeoutError, ValueError) as error:
        raise SystemExit(f"Failed: {error!r}. Check URL, vhost: make doctor")
