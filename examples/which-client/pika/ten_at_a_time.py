"""Do up to ten tasks of the work queue at once: python ten_at_a_time.py"""

import os
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def work(task: str) -> None:
    print(f" [x] Received {task!r}\n", end="")  # in one piece
    time.sleep(task.count("."))
    print(f" [x] Done {task!r}\n", end="")


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.basic_qos(prefetch_count=10)
    channel.queue_declare(
        "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )

    def done(tag: int, job: Future[None]) -> None:  # in the pool's thread
        ack = partial(channel.basic_ack, tag)
        then = job.result if job.exception() else ack  # result() raises it
        with suppress(AMQPError):  # it is gone; the loop below says so
            connection.add_callback_threadsafe(then)  # only its thread may

    pool = ThreadPoolExecutor(max_workers=10)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    messages: Any = channel.consume("task_queue")
    for method, _, body in messages:
        job = pool.submit(work, body.decode())
        job.add_done_callback(partial(done, method.delivery_tag))
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
