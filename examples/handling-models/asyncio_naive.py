#!/usr/bin/env python3
"""A task for every message; it loses jobs: python asyncio_naive.py

The block that acks ends as soon as the task is created, not when it is done.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def work(job: str) -> None:
    verb, number, *_ = job.split()
    if verb == "count":
        for _ in range(int(number)):
            pass
    else:
        await asyncio.sleep(float(number))
    print(f" [x] Done {job!r}")


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        await channel.declare_queue(
            "failed_jobs", durable=True, arguments={"x-queue-type": "quorum"}
        )
        queue = await channel.declare_queue(
            "jobs",
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                # Rejected jobs go to failed_jobs, and surely arrive.
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "failed_jobs",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        async with queue.iterator() as messages:
            print(" [*] Waiting for messages. To exit press CTRL+C")
            async for message in messages:
                async with message.process():
                    job = os.fsdecode(message.body)
                    print(f" [x] Received {job!r}")
                    asyncio.create_task(work(job))  # noqa: RUF006
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
