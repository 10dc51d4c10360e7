#!/usr/bin/env python3
"""Do jobs in a pool of processes: python process_pool.py 2

For jobs that compute: each process has an interpreter, and a lock, of its own.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ConnectionWrongStateError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def work(job: str) -> None:
    verb, number, *_ = job.split()
    if verb == "count":
        for _ in range(int(number)):
            pass
    else:
        time.sleep(float(number))


def begin() -> None:
    """In each process of the pool: it ends with its parent, not after it."""

    def leave() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def main(workers: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    # Twice, so that whoever has done a job finds the next one already here.
    channel.basic_qos(prefetch_count=2 * workers)
    channel.queue_declare(
        "failed_jobs", durable=True, arguments={"x-queue-type": "quorum"}
    )
    channel.queue_declare(
        "jobs",
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            # Rejected jobs go to failed_jobs, and surely arrive.
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "failed_jobs",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    # "fork" would copy a process with threads; that may hang. So not that one.
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(workers, context, begin)
    # Ctrl-C goes to all of them, too: they inherit that it is ignored.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pool.submit(int).result()  # starts them all
    in_hand: set[int] = set()
    stopped = False

    def on_message(
        _: BlockingChannel,
        method: Basic.Deliver,
        __: BasicProperties,
        body: bytes,
    ) -> None:
        job, tag = os.fsdecode(body), method.delivery_tag
        print(f" [x] Received {job!r}")
        in_hand.add(tag)

        def done(future: Future[None]) -> None:
            # On a thread of the pool; pika's objects belong to the main one.
            with suppress(ConnectionWrongStateError):  # or nobody to tell
                connection.add_callback_threadsafe(
                    partial(settle, job, tag, future)
                )

        pool.submit(work, job).add_done_callback(done)

    def settle(job: str, tag: int, future: Future[None]) -> None:
        in_hand.remove(tag)
        if error := future.exception():
            if isinstance(error, BrokenProcessPool):  # not the job's own fault
                raise ConnectionError("a process of the pool died")
            print(f" [!] Failed {job!r}: {error}")
            channel.basic_reject(tag, requeue=False)
        else:
            print(f" [x] Done {job!r}")
            channel.basic_ack(tag)

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        for each in signal.SIGINT, signal.SIGTERM:
            signal.signal(each, signal.SIG_DFL)  # the next one ends us at once
        # A handler runs in the middle of anything: let pika choose the moment.
        connection.add_callback_threadsafe(channel.stop_consuming)

    for each in signal.SIGINT, signal.SIGTERM:
        signal.signal(each, stop)
    channel.basic_consume("jobs", on_message)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    try:
        channel.start_consuming()  # until stopped, or the queue is deleted
        if not stopped:
            raise ConnectionError("the broker ended the consumer")
        print(
            f" [*] Finishing {len(in_hand)} jobs. To leave them press CTRL+C"
        )
        while in_hand:  # not pool.shutdown(): that would stop the heartbeats
            connection.process_data_events(time_limit=None)
        connection.close()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "10"
    if not given.isdecimal() or not int(given):
        print("Usage: python process_pool.py [WORKERS]", file=sys.stderr)
        sys.exit(2)
    try:
        main(int(given))
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
