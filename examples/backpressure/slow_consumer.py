#!/usr/bin/env python3
"""Take messages from a queue, one at a time, so many seconds each.

    python slow_consumer.py limited_tasks 0.2

The queue is its sender's, store_or_wait.py for one: start that first.
"""

import os
import sys
import time
from functools import partial

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def on_message(
    seconds: float,
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    time.sleep(seconds)  # the work
    print(f" [x] Done {body.decode()!r}")
    channel.basic_ack(method.delivery_tag)


def main(queue: str, seconds: float) -> None:
    # Not closed: after a Ctrl-C in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, partial(on_message, seconds))
    print(" [*] Waiting for messages. To exit press CTRL+C")
    channel.start_consuming()  # returns when the queue is deleted
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        queue, seconds = sys.argv[1], float(sys.argv[2])
    except (IndexError, ValueError):
        print("Usage: python slow_consumer.py QUEUE SECONDS", file=sys.stderr)
        sys.exit(2)
    try:
        main(queue, seconds)
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
