#!/usr/bin/env python3
"""Do tasks from the work queue, one at a time: python tasks_worker.py

Start as many workers as you like, then send tasks with new_task.py. A task
that fails is set aside in the queue failed_tasks.
"""

import os
import sys
import time

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def work(task: str, redelivered: bool) -> None:
    print(f" [x] Received {task!r}{' (redelivered)' if redelivered else ''}")
    time.sleep(task.count("."))
    print(" [x] Done")


def on_message(
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    try:
        work(body.decode(), method.redelivered)
    except Exception as error:
        print(f" [!] Failed: {error}")
        channel.queue_declare(
            "failed_tasks", durable=True, arguments={"x-queue-type": "quorum"}
        )
        channel.basic_publish("", "failed_tasks", body, properties)
    # Not before the work is done: an acked task is gone from the queue.
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    # Not closed: after a Ctrl-C in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.confirm_delivery()  # set aside means: the broker has it
    # No further task for this worker until it has acked the last one.
    channel.basic_qos(prefetch_count=1)
    channel.queue_declare(
        "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )
    channel.basic_consume("task_queue", on_message)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    channel.start_consuming()  # returns when the queue is deleted
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
