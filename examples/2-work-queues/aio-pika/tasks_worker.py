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
    channel: AbstractChannel,
    trouble: asyncio.Queue[Exception],
    message: AbstractIncomingMessage,
) -> None:
    try:
        # Acks at the end of the block, when the work is done. If the block
        # raises, requeue: the default is to drop the task.
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
    except Exception as error:  # not even set aside: end the worker
        trouble.put_nowait(error)


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        # No further task for this worker until it has acked the last one.
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        trouble: asyncio.Queue[Exception] = asyncio.Queue()
        ended = ConnectionError("the broker ended the consumer")
        channel.close_callbacks.add(lambda *_: trouble.put_nowait(ended))
        amqp = await channel.get_underlay_channel()  # told of a deleted queue
        amqp.on_consumer_cancel_callbacks.add(
            lambda _: trouble.put_nowait(ended)
        )
        await queue.consume(partial(on_message, channel, trouble))
        print(" [*] Waiting for messages. To exit press CTRL+C")
        raise await trouble.get()


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
