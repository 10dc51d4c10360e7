#!/usr/bin/env python3
"""A task that does nothing, with taskiq.

python peer_taskiq.py bench 1000 --produce
python peer_taskiq.py bench 1000

Its time ends when the last task has, not when the broker has its ack.
"""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

import argparse
import asyncio
import json
import os
import time
from pathlib import Path

from taskiq.api import run_receiver_task
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def main(given: argparse.Namespace) -> None:
    write = Path(given.seen).open("wb", buffering=0).write  # noqa: SIM115
    times: list[float] = []
    ended = asyncio.Event()
    broker = AioPikaBroker(
        AMQP_URL,
        qos=given.prefetch,
        task_queues=[Queue(name=given.queue, type=QueueType.CLASSIC)],
    )

    @broker.task("nothing")
    async def nothing(number: int) -> None:
        write(b"%07d " % number)
        times.append(time.monotonic())
        if len(times) == given.count:
            ended.set()

    broker.is_worker_process = not given.produce
    await broker.startup()
    if given.produce:
        times.append(time.monotonic())
        for begin in range(0, given.count, 100):
            numbers = range(begin, min(begin + 100, given.count))
            await asyncio.gather(*(nothing.kiq(n) for n in numbers))
        times.append(time.monotonic())
    else:
        worker = asyncio.create_task(run_receiver_task(broker))
        await ended.wait()
        await asyncio.sleep(0.5)  # it acks after the task
        worker.cancel()
    await broker.shutdown()
    print(json.dumps({"first": times[0], "last": times[-1]}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--produce", action="store_true")
    parser.add_argument("--seen", default=os.devnull)
    asyncio.run(main(parser.parse_args()))
