"""Do jobs in a pool of processes: python process_pool.py 2"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pika
from pika.exceptions import AMQPError, ConnectionWrongStateError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUORUM = {"x-queue-type": "quorum"}


def work(job: str) -> None:
    verb, number, *_ = job.split()
    if verb == "count":
        for _ in range(int(number)):
            pass
    else:
        time.sleep(float(number))


def leave() -> None:  # each process of the pool ends when its parent has
    multiprocessing.parent_process().join()  # type: ignore
    os._exit(1)


def main(workers: int) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel: Any = connection.channel()
    channel.basic_qos(prefetch_count=2 * workers)  # the next is here already
    channel.queue_declare("jobs", durable=True, arguments=QUORUM)
    # A process that is forked gets a copy of the connection, too: see leave().
    fork = multiprocessing.get_context("fork")
    watch = partial(threading.Thread, target=leave, daemon=True)
    pool = ProcessPoolExecutor(workers, fork, lambda: watch().start())
    pool.submit(int).result()  # starts them all

    def done(job: str, tag: int, future: Future[None]) -> None:
        def settle() -> None:
            future.result()  # raises what the job has raised: all goes back
            print(f" [x] Done {job!r}")
            channel.basic_ack(tag)

        # On a thread of the pool; pika's objects belong to the main one.
        with suppress(ConnectionWrongStateError):  # then it goes back anyway
            connection.add_callback_threadsafe(settle)

    print(" [*] Waiting for messages. To exit press CTRL+C")
    try:
        for method, _, body in channel.consume("jobs"):
            job = os.fsdecode(body)
            print(f" [x] Received {job!r}")
            future = pool.submit(work, job)
            future.add_done_callback(partial(done, job, method.delivery_tag))
        sys.exit("Failed: the queue is gone")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # begins no other job


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "10"
    if given not in map(str, range(1, 1000)):
        sys.exit("Usage: python process_pool.py [WORKERS], 1 to 999")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(int(given))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
