"""Read the stream `events` from some time ago on: python read_since.py 5m"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def parse(since: str) -> str | datetime:
    if since.endswith(tuple("YMDhms")):  # M: month, m: minute
        return since
    moment = datetime.fromisoformat(since).astimezone(UTC)
    return max(moment, datetime.fromtimestamp(0, UTC))  # AMQP's first


async def main(place: dict[str, str | datetime]) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=100)  # without, it is refused
        queue = await channel.declare_queue(
            "events", durable=True, arguments=STREAM
        )
        print(" [*] Waiting for events. To exit press CTRL+C")
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):
            async for event in queue.iterator(arguments=place):
                offset = event.headers["x-stream-offset"]
                text = os.fsdecode(event.body)
                print(f" [x] Received {text!r} at offset {offset}")
                await event.ack()
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    try:
        place = {"x-stream-offset": parse(" ".join(sys.argv[1:]))}
    except (ValueError, OverflowError):
        sys.exit("Usage: python read_since.py 5m|7D|2026-11-21")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main(place))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
