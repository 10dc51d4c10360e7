#!/usr/bin/env python3
"""A mistake to recognise: this worker never acks what it has done.

Run it, send a task, and look at the queue: python tasks_worker_forgetful.py
"""

import os
import sys
import time

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def on_message(
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    task = body.decode()
    print(f" [x] Received {task!r}")
    time.sleep(task.count("."))
    print(" [x] Done")


def main() -> None:
    # Not closed: after a Ctrl-C in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.queue_declare(
        "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )
    channel.basic_consume("task_queue", on_message)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    channel.start_consuming()
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
