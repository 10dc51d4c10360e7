#!/usr/bin/env python3
"""Publish tasks into a queue that is full at five, and wait when it is.

So many tasks: python store_or_wait.py 4
With more, run slow_consumer.py beside it, so that there is room again.
"""

import os
import random
import sys

import pika
from pika.exceptions import AMQPError, NackError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
LIMITS = {
    "x-queue-type": "quorum",
    "x-max-length": 5,
    "x-overflow": "reject-publish",  # else the oldest task would be dropped
}
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


def main(count: int) -> None:
    stored, refused, pause = 0, 0, 0.05
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()  # without it we would not be told
        channel.queue_declare("limited_tasks", durable=True, arguments=LIMITS)
        try:
            while stored < count:
                body = f"task {stored + 1}".encode()
                try:
                    channel.basic_publish(
                        "", "limited_tasks", body, PERSISTENT, mandatory=True
                    )
                    stored, pause = stored + 1, 0.05
                except NackError:
                    if not refused:
                        print(" [!] The queue is full: waiting for room")
                    refused += 1
                    # Heartbeats go on, which time.sleep() would stop. Random,
                    # so that those who wait don't all come back together.
                    connection.sleep(random.uniform(pause / 2, pause))
                    pause = min(pause * 2, 1.0)
        finally:
            print(f" [x] Stored {stored} of {count}, refused {refused} times")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if not given.isdecimal() or not int(given):
        print("Usage: python store_or_wait.py N", file=sys.stderr)
        sys.exit(2)
    try:
        main(int(given))
    except KeyboardInterrupt:
        sys.exit(1)
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
