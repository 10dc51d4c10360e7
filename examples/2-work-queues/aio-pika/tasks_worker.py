#!/usr/bin/env python3
"""Do tasks from the work queue, one at a time: python tasks_worker.py

Start as many workers as you like, then send tasks with new_task.py. A task
that fails is set aside in the queue failed_tasks.
"""

import asyncio
import logging
import os
import sys
from functools import partial

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def work(task: str, redelivered: bool) -> None:
    print(f" [x] Received {task!r}{' (redelivered)' if redelivered else ''}")
    await asyncio.sleep(task.count("."))
    print(" [x] Done")


async def on_message(
    channel: AbstractChannel, message: AbstractIncomingMessage
) -> None:
    # Acks at the end of the block, when the work is done. Without requeue,
    # what breaks the block off, Ctrl-C for one, would drop the task.
    async with message.process(requeue=True):
        try:
            await work(message.body.decode(), bool(message.redelivered))
        except Exception as error:
            print(f" [!] Failed: {error}")
            await channel.declare_queue(
                "failed_tasks",
                durable=True,
                arguments={"x-queue-type": "quorum"},
            )
            await channel.default_exchange.publish(message, "failed_tasks")


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        # No further task for this worker until it has acked the last one.
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        stopped = asyncio.Event()
        channel.close_callbacks.add(lambda *_: stopped.set())
        amqp = await channel.get_underlay_channel()  # told of a deleted queue
        amqp.on_consumer_cancel_callbacks.add(lambda _: stopped.set())
        await queue.consume(partial(on_message, channel))
        print(" [*] Waiting for messages. To exit press CTRL+C")
        await stopped.wait()
        raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
