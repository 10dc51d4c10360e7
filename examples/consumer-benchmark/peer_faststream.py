#!/usr/bin/env python3
"""A task that does nothing, with FastStream.

python peer_faststream.py bench 1000 --produce
python peer_faststream.py bench 1000

Its time ends when the last task has, not when the broker has its ack.
"""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

import argparse
import asyncio
import json
import logging
import os
import time
from pathlib import Path

from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(given: argparse.Namespace) -> None:
    write = Path(given.seen).open("wb", buffering=0).write  # noqa: SIM115
    times: list[float] = []
    ended = asyncio.Event()
    broker = RabbitBroker(
        AMQP_URL,
        default_channel=Channel(prefetch_count=given.prefetch),
        logger=logging.getLogger("quiet"),
    )
    queue = RabbitQueue(given.queue, durable=True)

    async with broker:
        await broker.declare_queue(queue)
        if given.produce:
            times.append(time.monotonic())
            for begin in range(0, given.count, 100):
                numbers = range(begin, min(begin + 100, given.count))
                await asyncio.gather(
                    *(broker.publish(n, queue) for n in numbers)
                )
            times.append(time.monotonic())
        else:

            @broker.subscriber(queue)
            async def nothing(number: int) -> None:
                write(b"%07d " % number)
                times.append(time.monotonic())
                if len(times) == given.count:
                    ended.set()

            await broker.start()
            await ended.wait()
    print(json.dumps({"first": times[0], "last": times[-1]}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--produce", action="store_true")
    parser.add_argument("--seen", default=os.devnull)
    asyncio.run(main(parser.parse_args()))
