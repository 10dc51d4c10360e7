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


async def work(task: str) -> None:
    print(f" [x] Received {task!r}")
    await asyncio.sleep(task.count("."))
    print(f" [x] Done {task!r}")


async def on_message(
    trouble: asyncio.Queue[Exception], message: AbstractIncomingMessage
) -> None:
    # aio-pika calls this in a task of its own for each message.
    try:
        await work(message.body.decode())
        await message.ack()
    except Exception as error:  # aio-pika would only log it
        trouble.put_nowait(error)


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=10)
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
        await queue.consume(partial(on_message, trouble))
        print(" [*] Waiting for messages. To exit press CTRL+C")
        raise await trouble.get()  # not acked: what is in hand goes back


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
