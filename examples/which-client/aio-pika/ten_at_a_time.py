#!/usr/bin/env python3
"""Do up to ten tasks from the work queue at once: python ten_at_a_time.py

Send tasks with chapter 2's new_task.py; every dot is a second of waiting.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def work(task: str) -> None:
    print(f" [x] Received {task!r}")
    await asyncio.sleep(task.count("."))
    print(f" [x] Done {task!r}")


async def on_message(message: AbstractIncomingMessage) -> None:
    async with message.process(requeue=True):
        await work(message.body.decode())


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=10)
        queue = await channel.declare_queue(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        async with queue.iterator() as messages, asyncio.TaskGroup() as jobs:
            print(" [*] Waiting for messages. To exit press CTRL+C")
            async for message in messages:
                # Work of a task of its own. If one raises, the group ends
                # the others, and this worker.
                jobs.create_task(on_message(message))
        raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError, ExceptionGroup) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, ExceptionGroup):  # from the task group
            why = why.exceptions[0]
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
