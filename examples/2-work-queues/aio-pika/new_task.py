"""Send a task; each dot is a second of work: python new_task.py Hello..."""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def main(task: str) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        # publish waits for the broker's word; so, no such queue is an error.
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        await channel.default_exchange.publish(
            aio_pika.Message(os.fsencode(task), delivery_mode=2, priority=4),
            routing_key="task_queue",
        )
        print(f" [x] Sent {task!r}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main(" ".join(sys.argv[1:]) or "Hello..."))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
