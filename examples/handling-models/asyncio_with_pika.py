#!/usr/bin/env python3
"""pika on asyncio, a task for each message: python asyncio_with_pika.py 10

pika tells what happens by callbacks. Here they put it into a queue, from which
a coroutine takes it.
"""

import asyncio
import logging
import os
import signal
import sys
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def work(job: str) -> None:
    verb, number, *_ = job.split()
    if verb == "count":
        for _ in range(int(number)):
            pass
    else:
        await asyncio.sleep(float(number))


async def do(
    slots: asyncio.Semaphore, channel: Channel, tag: int, job: str
) -> None:
    try:
        async with slots:
            await work(job)
    except Exception as error:
        print(f" [!] Failed {job!r}: {error}")
        channel.basic_reject(tag, requeue=False)
    else:
        print(f" [x] Done {job!r}")
        channel.basic_ack(tag)


async def main(workers: int) -> None:
    news: asyncio.Queue[Any] = asyncio.Queue()
    in_hand: set[asyncio.Task[None]] = set()
    slots = asyncio.Semaphore(workers)

    async def what_happens() -> Any:
        if isinstance(found := await news.get(), BaseException):
            raise found
        return found

    def on_message(
        channel: Channel,
        method: Basic.Deliver,
        _: BasicProperties,
        body: bytes,
    ) -> None:
        job = os.fsdecode(body)
        print(f" [x] Received {job!r}")
        tag = method.delivery_tag
        task = asyncio.create_task(do(slots, channel, tag, job))
        in_hand.add(task)  # asyncio's own reference is weak
        task.add_done_callback(in_hand.discard)

    def ready(_: object) -> None:
        print(" [*] Waiting for messages. To exit press CTRL+C")

    def stop() -> None:
        news.put_nowait("stopped")
        for each in signal.SIGINT, signal.SIGTERM:
            signal.signal(each, signal.SIG_DFL)  # the next one ends us at once

    connection = AsyncioConnection(
        pika.URLParameters(AMQP_URL),
        on_open_callback=lambda it: it.channel(
            on_open_callback=news.put_nowait
        ),
        on_open_error_callback=lambda _, why: news.put_nowait(why),
        on_close_callback=lambda _, why: news.put_nowait(why),
    )
    channel: Channel = await what_happens()
    for each in signal.SIGINT, signal.SIGTERM:
        asyncio.get_running_loop().add_signal_handler(each, stop)
    channel.add_on_close_callback(lambda _, why: news.put_nowait(why))
    ended = ConnectionError("the broker ended the consumer")
    channel.add_on_cancel_callback(lambda _: news.put_nowait(ended))
    # In this order: the channel sends each when the last one is answered.
    channel.basic_qos(prefetch_count=2 * workers)
    channel.queue_declare(
        "failed_jobs", durable=True, arguments={"x-queue-type": "quorum"}
    )
    channel.queue_declare(
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
    tag = channel.basic_consume("jobs", on_message, callback=ready)
    await what_happens()  # a signal, or trouble
    channel.basic_cancel(tag, callback=news.put_nowait)
    await what_happens()
    print(f" [*] Finishing {len(in_hand)} jobs. To leave them press CTRL+C")
    await asyncio.gather(*in_hand, return_exceptions=True)
    if not channel.is_open:
        await what_happens()
    connection.close()
    await news.get()


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "10"
    if not given.isdecimal() or not int(given):
        print("Usage: python asyncio_with_pika.py [WORKERS]", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # exit says it
    try:
        asyncio.run(main(int(given)))
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
