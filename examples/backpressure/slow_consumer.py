"""Take messages, 0.2 s each: python slow_consumer.py limited_tasks 0.2

The queue is its sender's, store_or_wait.py for one: start that first.
"""

import os
import re
import signal
import sys
import time
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main(queue: str, seconds: float) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    messages: Any = channel.consume(queue)
    for method, _, body in messages:
        time.sleep(seconds)  # the work
        print(f" [x] Done {body.decode()!r}")
        channel.basic_ack(method.delivery_tag)
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    if not re.fullmatch(r"\d+(\.\d+)?", " ".join(sys.argv[2:])):
        sys.exit("Usage: python slow_consumer.py QUEUE SECONDS")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        main(sys.argv[1], float(sys.argv[2]))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
