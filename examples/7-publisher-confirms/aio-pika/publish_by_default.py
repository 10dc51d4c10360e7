"""What the client does by itself: python publish_by_default.py QUEUE TEXT"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def main(queue: str, text: str) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        message = aio_pika.Message(os.fsencode(text))
        await channel.default_exchange.publish(message, queue)
        print(f" [x] Sent {text!r}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    if len(sys.argv) < 3:
        sys.exit("Usage: python publish_by_default.py QUEUE MESSAGE...")
    try:
        asyncio.run(main(sys.argv[1], " ".join(sys.argv[2:])))
    except (aio_pika.exceptions.AMQPError, TimeoutError, ValueError) as error:
        raise SystemExit(f"Failed: {error!r}. Check URL, vhost: make doctor")
