#!/usr/bin/env python3
"""Consume with aio-pika, in a loop over its iterator: one after the other.

python aio_pika_iterator.py bench 1000 --prefetch 500
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

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(given: argparse.Namespace) -> None:
    done, first = 0, 0.0
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=given.prefetch)
        queue = await channel.get_queue(given.queue)
        with Path(given.seen).open("wb", buffering=0) as seen:
            async with queue.iterator() as messages:
                async for message in messages:
                    async with message.process(requeue=True):
                        first = first or time.monotonic()
                        if given.work:
                            await asyncio.sleep(given.work)
                        seen.write(message.body[:8])
                    done += 1
                    if done == given.count:
                        break
            # The iterator's end waits for cancel-ok.
            print(json.dumps({"first": first, "last": time.monotonic()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=500)
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
