"""Publish, hear what became of it: python publish_or_explain.py QUEUE TEXT"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def main(queue: str, text: str) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        # Without this, a message that comes back raises nothing.
        channel = await connection.channel(on_return_raises=True)
        body = os.fsencode(text)
        message = aio_pika.Message(body, delivery_mode=2, priority=4)
        try:
            await channel.default_exchange.publish(message, queue)
        except aio_pika.exceptions.PublishError as error:
            sys.exit(f" [!] Returned {text!r}: {error.args[0]}")
        except aio_pika.exceptions.DeliveryError:
            sys.exit(f" [!] Nacked {text!r}: {queue} refuses it")
        print(f" [x] Confirmed {text!r}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    if len(sys.argv) < 3:
        sys.exit("Usage: python publish_or_explain.py QUEUE MESSAGE...")
    try:
        asyncio.run(main(sys.argv[1], " ".join(sys.argv[2:])))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
