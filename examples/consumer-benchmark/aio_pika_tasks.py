#!/usr/bin/env python3
"""Consume with aio-pika, so many tasks at work at a time.

python aio_pika_tasks.py bench 1000 --workers 8 --work 0.1
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
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(given: argparse.Namespace) -> None:
    done, first = 0, 0.0
    end = asyncio.Event()
    slots = asyncio.Semaphore(given.workers)
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        # Twice, so that whoever has done a job finds the next already here.
        prefetch = given.prefetch or 2 * given.workers
        await channel.set_qos(prefetch_count=prefetch)
        queue = await channel.get_queue(given.queue)
        with Path(given.seen).open("wb", buffering=0) as seen:

            async def on_message(message: AbstractIncomingMessage) -> None:
                nonlocal done, first
                first = first or time.monotonic()
                async with slots:
                    await asyncio.sleep(given.work)
                seen.write(message.body[:8])
                await message.ack()
                done += 1
                if done == given.count:
                    end.set()

            consumer = await queue.consume(on_message)
            await end.wait()
            # Waits for cancel-ok: by then the broker has had all acks.
            await queue.cancel(consumer)
            print(json.dumps({"first": first, "last": time.monotonic()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=0)
    parser.add_argument("--work", type=float, default=0)
    parser.add_argument("--workers", type=int, default=8)
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
