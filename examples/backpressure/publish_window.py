#!/usr/bin/env python3
"""Publish 1000 messages, at most WINDOW of them unconfirmed at a time.

With a window of a thousand there is no limit: python publish_window.py 1000
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
COUNT = 1000


async def main(window: int) -> None:
    unconfirmed = most = 0
    async with await aio_pika.connect(AMQP_URL) as connection:
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

        async with asyncio.TaskGroup() as tasks:
            for number in range(COUNT):
                await room.acquire()  # here it waits for the broker
                tasks.create_task(publish(number))
    print(f" [x] Confirmed {COUNT} messages, at most {most} in the air")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if not given.isdecimal() or not int(given):
        print("Usage: python publish_window.py WINDOW", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(int(given)))
    except KeyboardInterrupt:
        sys.exit(1)
    except (AMQPError, OSError, RuntimeError, ExceptionGroup) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, ExceptionGroup):  # from the task group
            why = why.exceptions[0]
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
