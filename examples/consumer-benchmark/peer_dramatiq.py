#!/usr/bin/env python3
"""A task that does nothing, with Dramatiq.

python peer_dramatiq.py bench 1000 --produce
python peer_dramatiq.py bench 1000

Its time ends when the last task has, not when the broker has its ack.
"""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

import argparse
import json
import os
import threading
import time
from pathlib import Path

# Read when it is imported.
os.environ["dramatiq_queue_prefetch"] = "500"  # noqa: SIM112

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(given: argparse.Namespace) -> None:
    broker = RabbitmqBroker(url=AMQP_URL)
    dramatiq.set_broker(broker)
    write = Path(given.seen).open("wb", buffering=0).write  # noqa: SIM115
    times: list[float] = []
    ended = threading.Event()

    @dramatiq.actor(queue_name=given.queue)
    def nothing(number: int) -> None:
        write(b"%07d " % number)
        times.append(time.monotonic())
        if len(times) == given.count:
            ended.set()

    if given.produce:
        times.append(time.monotonic())
        for number in range(given.count):
            nothing.send(number)
        times.append(time.monotonic())
        broker.close()  # sends the rest
    else:
        worker = dramatiq.Worker(broker, worker_threads=8)
        worker.start()
        ended.wait()
        worker.stop()
    print(json.dumps({"first": times[0], "last": times[-1]}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--produce", action="store_true")
    parser.add_argument("--seen", default=os.devnull)
    main(parser.parse_args())
