#!/usr/bin/env python3
"""Do up to ten tasks of the work queue at once: python ten_at_a_time.py

Send tasks with new_task.py of chapter 2; every dot is a second of waiting.
"""

import asyncio
import logging
import os
import sys
from functools import partial

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def work(message: AbstractIncomingMessage) -> None:
    async with message.process(requeue=True):
        task = message.body.decode()
        print(f" [x] Received {task!r}")
        await asyncio.sleep(task.count("."))
        print(f" [x] Done {task!r}")


async def on_message(
    jobs: asyncio.TaskGroup, message: AbstractIncomingMessage
) -> None:
    jobs.create_task(work(message))


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=10)
        queue = await channel.declare_queue(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        ended = asyncio.Event()  # by the broker: set when it says so
        channel.close_callbacks.add(lambda *_: ended.set())
        amqp = await channel.get_underlay_channel()
        amqp.on_consumer_cancel_callbacks.add(lambda _: ended.set())
        # If one job raises, the group ends the others, and this worker.
        async with asyncio.TaskGroup() as jobs:
            await queue.consume(partial(on_message, jobs))
            print(" [*] Waiting for messages. To exit press CTRL+C")
            await ended.wait()
            raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except (
        AMQPError,
        OSError,
        RuntimeError,
        ValueError,
        ExceptionGroup,
    ) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, ExceptionGroup):  # from the task group
            why = why.exceptions[0]
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
