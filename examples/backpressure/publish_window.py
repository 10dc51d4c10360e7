"""Publish 1000, at most 50 unconfirmed: python publish_window.py 50"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
COUNT = 1000


async def main(window: int) -> None:
    unconfirmed = most = 0
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel(on_return_raises=True)
        queue = await channel.declare_queue(exclusive=True)
        room = asyncio.Semaphore(window)

        async def publish(number: int) -> None:
            nonlocal unconfirmed, most
            unconfirmed += 1
            most = max(most, unconfirmed)
            message = aio_pika.Message(f"event {number}".encode())
            try:
                await channel.default_exchange.publish(message, queue.name)
            finally:
                unconfirmed -= 1
                room.release()

        tasks: list[asyncio.Task[None]] = []
        for number in range(COUNT):
            await room.acquire()  # here it waits for the broker
            tasks.append(asyncio.create_task(publish(number)))
        await asyncio.gather(*tasks)
    print(f" [x] Confirmed {COUNT} messages, at most {most} in the air")


if __name__ == "__main__":
    if " ".join(sys.argv[1:]) not in map(str, range(1, 10_000)):
        sys.exit("Usage: python publish_window.py WINDOW, 1 to 9999")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        asyncio.run(main(int(sys.argv[1])))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
