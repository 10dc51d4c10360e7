#!/usr/bin/env python3
"""Publish messages in batches of 100, then wait for all of its confirms.

How many (2000, if it isn't said): python publish_in_batches.py 2000
"""

import asyncio
import logging
import os
import sys
import time

import aio_pika
from aio_pika.abc import AbstractExchange
from aio_pika.exceptions import AMQPError, DeliveryError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
QUEUE = "confirmed_events"
BATCH = 100

Fates = dict[int, str]


async def publish(to: AbstractExchange, number: int, fates: Fates) -> None:
    fates[number] = "Unknown"  # until the broker has answered
    message = aio_pika.Message(
        f"event {number}".encode(),
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        priority=4,  # normal; aio-pika's own default is lowest
    )
    try:
        await to.publish(message, QUEUE)
        fates[number] = "Confirmed"
    except aio_pika.exceptions.PublishError:
        fates[number] = "Returned"
    except DeliveryError:
        fates[number] = "Nacked"


def report(fates: Fates, seconds: float) -> None:
    for fate in "Nacked", "Returned", "Unknown":
        if which := [number for number in fates if fates[number] == fate]:
            print(f" [!] {fate} {len(which)} messages:", *which)
    done = [*fates.values()].count("Confirmed")
    speed = f"{seconds:.2f} s: {done / seconds:.0f} a second"
    print(f" [x] Confirmed {done} messages in batches in {speed}")


async def main(count: int) -> None:
    fates: Fates = {}
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue(
            QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )
        exchange, started = channel.default_exchange, time.monotonic()
        try:
            for first in range(1, count + 1, BATCH):
                batch = range(first, min(first + BATCH, count + 1))
                await asyncio.gather(
                    *(publish(exchange, n, fates) for n in batch)
                )
        finally:
            report(fates, time.monotonic() - started)
    sys.exit(0 if {*fates.values()} == {"Confirmed"} else 1)


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "2000"
    if not given.isdecimal() or not int(given):
        print("Usage: python publish_in_batches.py [N]", file=sys.stderr)
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
