"""A task for every message; it loses jobs: python asyncio_naive.py

The block that acks ends as soon as the task is created, not when it is done.
"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def work(job: str) -> None:
    verb, number, *_ = job.split()
    if verb == "count":
        for _ in range(int(number)):
            pass
    else:
        await asyncio.sleep(float(number))
    print(f" [x] Done {job!r}")


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        queue = await channel.declare_queue(
            "jobs", durable=True, arguments={"x-queue-type": "quorum"}
        )
        print(" [*] Waiting for messages. To exit press CTRL+C")
        async for message in queue.iterator():
            async with message.process():
                job = os.fsdecode(message.body)
                print(f" [x] Received {job!r}")
                asyncio.create_task(work(job))  # noqa: RUF006
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
