"""Run errands, one after the other: python worker_errands.py

QUEUE names the queue, if it isn't errands. A worker gets nothing while one of
a higher CONSUMER_PRIORITY is free.
"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress

import aio_pika
from aio_pika.exceptions import ChannelInvalidStateError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = os.environ.get("QUEUE") or "errands"


async def main(priority: int) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        queue = await channel.get_queue(QUEUE)
        await channel.set_qos(
            prefetch_count=1
        )  # what is here, nothing overtakes
        print(" [*] Waiting for messages. To exit press CTRL+C")
        mine = {"x-priority": priority}
        with suppress(ChannelInvalidStateError):  # an ack too late
            async for message in queue.iterator(arguments=mine):
                print(f" [x] Received {os.fsdecode(message.body)!r}")
                await asyncio.sleep(message.body.count(b"."))
                await message.ack()
                print(" [x] Done")
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        rank = int(os.environ.get("CONSUMER_PRIORITY") or 0)
        if not 0 <= rank <= 255:
            raise ValueError
    except ValueError:
        sys.exit("CONSUMER_PRIORITY wants a number from 0 to 255")
    try:
        asyncio.run(main(rank))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor, declare_errands.py")
