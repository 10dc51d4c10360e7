"""Send one message to the queue hello: python send.py"""

import asyncio
import logging
import os
import signal

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        # publish waits for the broker's word; so, no such queue is an error.
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue(
            "hello", durable=True, arguments={"x-queue-type": "quorum"}
        )
        text = "Hello World!"
        await channel.default_exchange.publish(
            aio_pika.Message(text.encode(), priority=4),  # 4 is normal
            routing_key="hello",
        )
        print(f" [x] Sent {text!r}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
