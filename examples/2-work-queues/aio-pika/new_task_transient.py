#!/usr/bin/env python3
"""Send a task twice to a classic queue: once transient, once persistent.

    python new_task_transient.py A task.

Restart the broker, and see which of the two is still there.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(task: str) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        await channel.declare_queue(
            "classic_tasks",
            durable=True,
            arguments={"x-queue-type": "classic"},
        )
        modes = aio_pika.DeliveryMode
        for mode in modes.NOT_PERSISTENT, modes.PERSISTENT:
            await channel.default_exchange.publish(
                aio_pika.Message(os.fsencode(task), delivery_mode=mode),
                routing_key="classic_tasks",
            )
            name = "transient" if mode == 1 else "persistent"
            print(f" [x] Sent {task!r}, {name}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("Usage: python new_task_transient.py TASK...", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(" ".join(sys.argv[1:])))
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
