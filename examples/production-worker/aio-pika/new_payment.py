"""Send a payment with its key: python new_payment.py 17 alice 5

QUEUE names the queue, if it isn't payments.
"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = os.environ.get("QUEUE") or "payments"


async def main(key: str, task: str) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel(on_return_raises=True)
        # The same key each time it is sent: that it is one payment, not two.
        message = aio_pika.Message(
            os.fsencode(task), message_id=key, delivery_mode=2, priority=4
        )
        await channel.default_exchange.publish(message, QUEUE)
        print(f" [x] Sent {task!r}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    if len(sys.argv) < 3:
        sys.exit("Usage: python new_payment.py KEY ACCOUNT AMOUNT")
    try:
        asyncio.run(main(sys.argv[1], " ".join(sys.argv[2:])))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor, declare_queues.py")
