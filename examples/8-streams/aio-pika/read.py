"""Read the stream `events` from some place on: python read.py first"""

import asyncio
import logging
import os
import re
import signal
import sys
from contextlib import suppress

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


async def main(start: str | int) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=100)  # without, it is refused
        queue = await channel.declare_queue(
            "events", durable=True, arguments=STREAM
        )
        events = queue.iterator(arguments={"x-stream-offset": start})
        # Before it says so: "next" is the next event from here on.
        await events.consume()
        print(" [*] Waiting for events. To exit press CTRL+C")
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):
            async for event in events:
                offset = event.headers["x-stream-offset"]
                text = os.fsdecode(event.body)
                print(f" [x] Received {text!r} at offset {offset}")
                # This removes nothing, but lets the broker send another one.
                await event.ack()
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    start = " ".join(sys.argv[1:])
    if not re.fullmatch(r"first|last|next|\d{1,18}", start):
        sys.exit("Usage: python read.py first|last|next|OFFSET")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main(int(start) if start.isdecimal() else start))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
