"""Publish tasks, and wait when their queue is full: python store_or_wait.py 4

Full at five; with slow_consumer.py beside it there is room again.
"""

import os
import random
import signal
import sys

import pika
from pika.exceptions import AMQPError, NackError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
LIMITS = {
    "x-queue-type": "quorum",
    "x-max-length": 5,
    "x-overflow": "reject-publish",  # else the oldest task would be dropped
}


def main(count: int) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()  # without it we would not be told
    channel.queue_declare("limited_tasks", durable=True, arguments=LIMITS)
    stored = pika.BasicProperties(delivery_mode=2)  # persistent
    number, refused, pause = 1, 0, 0.05
    while number <= count:
        body = f"task {number}".encode()
        try:
            channel.basic_publish("", "limited_tasks", body, stored, True)
            number, pause = number + 1, 0.05
        except NackError:
            if not refused:
                print(" [!] The queue is full: waiting for room")
            refused += 1
            # Random, so that those who wait don't all come back together.
            connection.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, 1.0)
    print(f" [x] Stored {count} of {count}, refused {refused} times")
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) < 2 or not sys.argv[1].isdecimal():
        sys.exit("Usage: python store_or_wait.py N")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        main(int(sys.argv[1]))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
