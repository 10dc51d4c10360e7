#!/usr/bin/env python3
"""Consume with aio-pika as fast as is safe: on the channel below its queue.

python aio_pika_fastest.py bench 1000 --prefetch 500 --ack-every 100

aio-pika's own channel is one of aiormq, whose messages are lighter. Tasks may
end in any order, and an ack of several means all up to it: so what is acked is
what has been done without a gap.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path

import aio_pika
from aio_pika.exceptions import AMQPError
from aiormq.abc import DeliveredMessage

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
PATIENCE = 0.01  # seconds that an ack waits for others


async def main(given: argparse.Namespace) -> None:
    done = unacked = upto = 0
    first = 0.0
    ended: set[int] = set()
    end = asyncio.Event()
    write = Path(given.seen).open("wb", buffering=0).write  # noqa: SIM115

    async def on_message(message: DeliveredMessage) -> None:
        nonlocal done, unacked, upto, first
        first = first or time.monotonic()
        if given.work:
            await asyncio.sleep(given.work)
        write(message.body[:8])
        done += 1
        ended.add(message.delivery_tag or 0)
        waiting = unacked > 0
        while upto + 1 in ended:
            ended.remove(upto := upto + 1)
            unacked += 1
        if unacked >= given.ack_every or done == given.count:
            await ack()
        elif unacked and not waiting:
            await asyncio.sleep(PATIENCE)
            await ack()
        if done == given.count:
            end.set()

    async def ack() -> None:
        nonlocal unacked
        if unacked and given.ack_every:
            unacked = 0
            # Without waiting: what follows on the channel comes after it.
            await channel.basic_ack(upto, multiple=True, wait=False)

    async with await aio_pika.connect(AMQP_URL) as connection:
        own = await connection.channel()
        await own.set_qos(prefetch_count=given.prefetch)
        channel = await own.get_underlay_channel()
        consumer = await channel.basic_consume(
            given.queue, on_message, no_ack=not given.ack_every
        )
        await end.wait()
        # Waits for cancel-ok: by then the broker has had all acks.
        await channel.basic_cancel(consumer.consumer_tag or "")
        print(json.dumps({"first": first, "last": time.monotonic()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--ack-every", type=int, default=100)
    parser.add_argument("--work", type=float, default=0)
    parser.add_argument("--seen", default=os.devnull)
    parser.add_argument("--uvloop", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    loop_factory = None
    if given.uvloop:
        from uvloop import new_event_loop as loop_factory  # pyright: ignore
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main(given))
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
