"""Do up to ten tasks of the work queue at once: python ten_at_a_time.py"""

import asyncio
import logging
import os
import signal
from contextlib import suppress

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def work(message: aio_pika.abc.AbstractIncomingMessage) -> None:
    # The ack of what is done after the connection is lost: main() says so.
    with suppress(aio_pika.exceptions.ChannelInvalidStateError):
        async with message.process(requeue=True):
            task = message.body.decode()
            print(f" [x] Received {task!r}")
            await asyncio.sleep(task.count("."))
            print(f" [x] Done {task!r}")


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=10)
        queue = await channel.declare_queue(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        print(" [*] Waiting for messages. To exit press CTRL+C")
        async with asyncio.TaskGroup() as tasks:  # one that raises ends all
            async for message in queue.iterator():
                tasks.create_task(work(message))
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
