"""Ask for an errand: python new_errand.py Fetch the letters.

QUEUE names the queue, if it isn't errands; PRIORITY says how urgent it is, of
0 to 255; EXPIRES, after how many seconds nobody wants it any more.
"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = os.environ.get("QUEUE") or "errands"


async def main(task: str, priority: int, milliseconds: int) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel(on_return_raises=True)
        message = aio_pika.Message(
            os.fsencode(task),
            delivery_mode=2,
            priority=priority,
            expiration=milliseconds / 1000 or None,
        )
        await channel.default_exchange.publish(message, QUEUE)
        print(f" [x] Sent {task!r}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    if len(sys.argv) < 2:
        sys.exit("Usage: python new_errand.py ERRAND")
    try:
        # 4 is what a quorum queue takes a message for that says nothing.
        urgency = int(os.environ.get("PRIORITY") or 4)
        wanted = int(1000 * float(os.environ.get("EXPIRES") or 0))
        if not (0 <= urgency <= 255 and wanted >= 0):
            raise ValueError
    except (ValueError, OverflowError):
        sys.exit("PRIORITY wants a number from 0 to 255, EXPIRES seconds")
    try:
        asyncio.run(main(" ".join(sys.argv[1:]), urgency, wanted))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor, declare_errands.py")
