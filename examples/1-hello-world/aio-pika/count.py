"""Say how many messages and consumers the queue hello has: python count.py"""

import asyncio
import logging
import os
import signal

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        # passive: look, and make nothing. Without the queue it fails.
        queue = await channel.declare_queue("hello", passive=True)
        found = queue.declaration_result
        print(f" [*] Messages: {found.message_count}")
        print(f" [*] Consumers: {found.consumer_count}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
