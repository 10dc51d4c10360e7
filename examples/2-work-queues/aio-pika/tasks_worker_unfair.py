#!/usr/bin/env python3
"""Second draft of tasks_worker.py: it acks, but hoards tasks.

Run two of them, then send tasks: python tasks_worker_unfair.py
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def on_message(message: AbstractIncomingMessage) -> None:
    # Acks at the end of the block. By default an exception in it, and Ctrl-C
    # is one, would drop the message; with requeue it goes back to the queue.
    async with message.process(requeue=True):
        task = message.body.decode()
        print(f" [x] Received {task!r}")
        await asyncio.sleep(task.count("."))
        print(" [x] Done")


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        async with queue.iterator() as messages:
            print(" [*] Waiting for messages. To exit press CTRL+C")
            async for message in messages:
                await on_message(message)
        raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
