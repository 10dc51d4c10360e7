#!/usr/bin/env python3
"""Consume with pika, and do the work in a pool of threads.

python pika_threads.py bench 1000 --workers 8 --work 0.1

Only the connection's own thread acks: the others ask it to.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def work(seconds: float, body: bytes) -> bytes:
    time.sleep(seconds)
    return body


def main(given: argparse.Namespace) -> None:
    done, first = 0, 0.0
    with (
        Path(given.seen).open("wb", buffering=0) as seen,
        pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection,
        ThreadPoolExecutor(given.workers) as pool,
    ):
        channel = connection.channel()
        # Twice, so that whoever has done a job finds the next already here.
        prefetch = given.prefetch or 2 * given.workers
        channel.basic_qos(prefetch_count=prefetch)

        def on_message(
            channel: BlockingChannel,
            method: Basic.Deliver,
            properties: BasicProperties,
            body: bytes,
        ) -> None:
            nonlocal first
            first = first or time.monotonic()
            job = pool.submit(work, given.work, body)
            job.add_done_callback(partial(ask_to_settle, method.delivery_tag))

        def ask_to_settle(tag: int, job: Future[bytes]) -> None:
            callback = partial(settle, tag, job)
            connection.add_callback_threadsafe(callback)

        def settle(tag: int, job: Future[bytes]) -> None:
            nonlocal done
            seen.write(job.result()[:8])
            channel.basic_ack(tag)
            done += 1
            if done == given.count:
                # Waits for cancel-ok: by then the broker has had all acks.
                channel.stop_consuming()

        channel.basic_consume(given.queue, on_message)
        channel.start_consuming()
        print(json.dumps({"first": first, "last": time.monotonic()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=0)
    parser.add_argument("--work", type=float, default=0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seen", default=os.devnull)
    try:
        main(parser.parse_args())
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
