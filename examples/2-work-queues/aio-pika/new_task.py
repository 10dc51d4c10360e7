#!/usr/bin/env python3
"""Send a task to the work queue; every dot in it is a second of work.

    python new_task.py A task of three seconds...

It waits in the broker until a worker takes it: run tasks_worker.py.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, DeliveryError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(task: str) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        # publish returns once the broker has the message safe, and raises if
        # it refuses it; with this argument also if there is no such queue.
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        try:
            await channel.default_exchange.publish(
                aio_pika.Message(
                    os.fsencode(task),
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    priority=4,  # normal; aio-pika's own default is lowest
                ),
                routing_key="task_queue",
            )
        except DeliveryError:
            sys.exit(f" [!] Not sent {task!r}: the broker refused it")
        print(f" [x] Sent {task!r}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("Usage: python new_task.py TASK...", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(" ".join(sys.argv[1:])))
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
