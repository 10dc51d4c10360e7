#!/usr/bin/env python3
"""Publish an event every tenth of a second, also to a broker with an alarm.

So many events: python blocked_aio_pika.py 3
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


class Listener(logging.Handler):
    """aio-pika has no callback for this; what it has is a line in its log."""

    def emit(self, record: logging.LogRecord) -> None:
        if "was blocked by" in str(record.msg) and record.args:
            print(f" [!] Blocked by the broker: {[*record.args][-1]}")
        elif "was unblocked" in str(record.msg):
            print(" [x] Unblocked")


async def main(count: int) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue(
            "event_store", durable=True, arguments={"x-queue-type": "quorum"}
        )
        for number in range(1, count + 1):
            message = aio_pika.Message(
                f"event {number}".encode(),
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                priority=4,  # normal; aio-pika's own default is lowest
            )
            # Waits for the confirm, and so for the end of the alarm.
            await channel.default_exchange.publish(message, "event_store")
            await asyncio.sleep(0.1)
    print(f" [x] Confirmed {count} events")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if not given.isdecimal() or not int(given):
        print("Usage: python blocked_aio_pika.py N", file=sys.stderr)
        sys.exit(2)
    log = logging.getLogger("aiormq.connection")
    log.handlers, log.propagate = [Listener()], False
    try:
        asyncio.run(main(int(given)))
    except KeyboardInterrupt:
        sys.exit(1)
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
