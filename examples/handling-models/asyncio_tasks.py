"""Do jobs in asyncio's tasks, so many at a time: python asyncio_tasks.py 10

All of it is on one thread: a job must await, and neither block nor compute.
"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def work(job: str) -> None:
    verb, number, *_ = job.split()
    if verb == "count":
        for _ in range(int(number)):
            pass
    else:
        await asyncio.sleep(float(number))


async def main(workers: int) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=2 * workers)  # the next is here
        queue = await channel.declare_queue(
            "jobs", durable=True, arguments={"x-queue-type": "quorum"}
        )
        slots = asyncio.Semaphore(workers)

        async def do(message: AbstractIncomingMessage) -> None:
            with suppress(aio_pika.exceptions.ChannelInvalidStateError):
                async with message.process(requeue=True):
                    job = os.fsdecode(message.body)
                    print(f" [x] Received {job!r}")
                    async with slots:
                        await work(job)
                    print(f" [x] Done {job!r}")

        print(" [*] Waiting for messages. To exit press CTRL+C")
        async with asyncio.TaskGroup() as tasks:  # ends all if one raises
            async for message in queue.iterator():
                tasks.create_task(do(message))
            end = await asyncio.gather(amqp.closing, return_exceptions=True)
            raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "10"
    if given not in map(str, range(1, 1000)):
        sys.exit("Usage: python asyncio_tasks.py [WORKERS], 1 to 999")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main(int(given)))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
