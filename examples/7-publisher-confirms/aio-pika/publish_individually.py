#!/usr/bin/env python3
"""Publish messages one by one, each when the last one is confirmed.

How many (2000, if it isn't said): python publish_individually.py 2000
"""

import asyncio
import logging
import os
import sys
import time

import aio_pika
from aio_pika.exceptions import AMQPError, DeliveryError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
QUEUE = "confirmed_events"


async def main(count: int) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue(
            QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )
        done, started = 0, time.monotonic()
        try:
            for number in range(1, count + 1):
                message = aio_pika.Message(
                    f"event {number}".encode(),
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    priority=4,  # normal; aio-pika's own default is lowest
                )
                try:
                    await channel.default_exchange.publish(message, QUEUE)
                    done += 1
                except aio_pika.exceptions.PublishError:
                    print(f" [!] Returned message {number}")
                except DeliveryError:
                    print(f" [!] Nacked message {number}")
                except BaseException:  # no answer: the broker may have it
                    print(f" [!] Unknown message {number}")
                    raise
        finally:
            seconds = time.monotonic() - started
            speed = f"{seconds:.2f} s: {done / seconds:.0f} a second"
            print(f" [x] Confirmed {done} messages one by one in {speed}")
    sys.exit(0 if done == count else 1)


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "2000"
    if not given.isdecimal() or not int(given):
        print("Usage: python publish_individually.py [N]", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(int(given)))
    except KeyboardInterrupt:
        sys.exit(1)
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
