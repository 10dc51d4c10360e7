"""pika on asyncio, a task for each message: python asyncio_with_pika.py 10"""

import asyncio
import logging
import os
import signal
import sys
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def work(job: str) -> None:
    verb, number, *_ = job.split()
    if verb == "count":
        for _ in range(int(number)):
            pass
    else:
        await asyncio.sleep(float(number))


async def main(workers: int) -> None:
    try:
        parameters = pika.URLParameters(AMQP_URL)
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    slots = asyncio.Semaphore(workers)
    end: asyncio.Queue[Any] = asyncio.Queue()  # what ends it

    def ended(_: object, why: object = "the queue is gone") -> None:
        end.put_nowait(why)

    async def do(channel: Channel, tag: int, body: bytes) -> None:
        job = os.fsdecode(body)
        print(f" [x] Received {job!r}")
        async with slots:
            await work(job)
        print(f" [x] Done {job!r}")
        if channel.is_open:  # or the job has gone back already
            channel.basic_ack(tag)

    def on_message(channel: Any, method: Any, _: Any, body: bytes) -> None:
        tasks.create_task(do(channel, method.delivery_tag, body))

    def on_channel(channel: Channel) -> None:
        channel.add_on_close_callback(ended)
        channel.add_on_cancel_callback(ended)
        channel.basic_qos(prefetch_count=2 * workers)
        channel.queue_declare(
            "jobs", durable=True, arguments={"x-queue-type": "quorum"}
        )
        channel.basic_consume("jobs", on_message)
        print(" [*] Waiting for messages. To exit press CTRL+C")

    async with asyncio.TaskGroup() as tasks:  # ends all if one raises
        AsyncioConnection(
            parameters,
            on_open_callback=lambda it: it.channel(
                on_open_callback=on_channel
            ),
            on_open_error_callback=ended,
            on_close_callback=ended,
        )
        raise SystemExit(f"Failed: {await end.get()!r}. Try make doctor")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "10"
    if given not in map(str, range(1, 1000)):
        sys.exit("Usage: python asyncio_with_pika.py [WORKERS], 1 to 999")
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    asyncio.run(main(int(given)))
