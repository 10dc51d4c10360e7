#!/usr/bin/env python3
"""Do up to ten tasks of the work queue at once: python ten_at_a_time.py

Send tasks with new_task.py of chapter 2; every dot is a second of waiting.
"""

import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def work(task: str) -> None:
    # In one piece each, because other threads print, too.
    print(f" [x] Received {task!r}\n", end="")
    time.sleep(task.count("."))
    print(f" [x] Done {task!r}\n", end="")


def settle(channel: BlockingChannel, tag: int, job: Future[None]) -> None:
    job.result()  # raises what the work has raised, which ends this worker
    channel.basic_ack(tag)


def on_message(
    pool: ThreadPoolExecutor,
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    def done(job: Future[None]) -> None:
        # Runs in the pool's thread, and pika's objects belong to this one:
        # leave the ack to the thread that owns the connection.
        ack = partial(settle, channel, method.delivery_tag, job)
        channel.connection.add_callback_threadsafe(ack)

    # Work of a thread of its own, so that heartbeats go on meanwhile.
    pool.submit(work, body.decode()).add_done_callback(done)


def main() -> None:
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=10)
    channel.queue_declare(
        "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )
    pool = ThreadPoolExecutor(max_workers=10)
    channel.basic_consume("task_queue", partial(on_message, pool))
    print(" [*] Waiting for messages. To exit press CTRL+C")
    channel.start_consuming()
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        # A thread cannot be interrupted: leave without waiting for the pool.
        os._exit(0)
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
