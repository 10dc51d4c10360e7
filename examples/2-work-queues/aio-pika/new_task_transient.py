"""A task twice, to a classic queue: python new_task_transient.py A task."""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def main(task: str) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        await channel.declare_queue(
            "classic_tasks",
            durable=True,
            arguments={"x-queue-type": "classic"},
        )
        for mode, name in (1, "transient"), (2, "persistent"):
            message = aio_pika.Message(os.fsencode(task), delivery_mode=mode)
            await channel.default_exchange.publish(message, "classic_tasks")
            print(f" [x] Sent {task!r}, {name}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main(" ".join(sys.argv[1:]) or "Hello..."))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
