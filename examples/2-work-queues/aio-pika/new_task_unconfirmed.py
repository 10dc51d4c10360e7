#!/usr/bin/env python3
"""First draft of new_task.py: it hopes that the broker has the task.

Every dot is a second of work: python new_task_unconfirmed.py A task...
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
        channel = await connection.channel(publisher_confirms=False)
        # Both sides declare the queue, so it does not matter which is first.
        await channel.declare_queue(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        await channel.default_exchange.publish(
            aio_pika.Message(os.fsencode(task)), routing_key="task_queue"
        )
        print(f" [x] Sent {task!r}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("Usage: python new_task_unconfirmed.py TASK...", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(" ".join(sys.argv[1:])))
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
