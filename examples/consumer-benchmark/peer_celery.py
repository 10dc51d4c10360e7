#!/usr/bin/env python3
"""A task that does nothing, with Celery.

python peer_celery.py bench 1000 --produce
python peer_celery.py bench 1000

Its time ends when the last task has, not when the broker has its ack.
"""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

import argparse
import json
import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from celery import Celery
from kombu import Queue

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(given: argparse.Namespace) -> None:
    write = Path(given.seen).open("wb", buffering=0).write  # noqa: SIM115
    times: list[float] = []
    app = Celery(broker=AMQP_URL)
    app.conf.update(
        task_queues=[Queue(given.queue)],
        task_default_queue=given.queue,
        task_acks_late=True,  # after the work, as all others do
        task_ignore_result=True,
        worker_prefetch_multiplier=given.prefetch,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,  # its queue is refused since 4.3
        broker_transport_options={"confirm_publish": True},
    )

    @app.task
    def nothing(number: int) -> None:
        write(b"%07d " % number)
        times.append(time.monotonic())
        if len(times) == given.count:
            os.kill(os.getpid(), signal.SIGTERM)  # a warm shutdown: acks first

    if given.produce:
        times.append(time.monotonic())
        with app.producer_pool.acquire() as producer:
            for number in range(given.count):
                nothing.apply_async((number,), producer=producer)
        times.append(time.monotonic())
    else:
        logging.disable(logging.WARNING)
        worker = app.Worker(
            pool="solo",
            concurrency=1,
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        with suppress(SystemExit):
            worker.start()
    print(json.dumps({"first": times[0], "last": times[-1]}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--produce", action="store_true")
    parser.add_argument("--seen", default=os.devnull)
    main(parser.parse_args())
