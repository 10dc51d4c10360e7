"""Run errands, one after the other: python worker_errands.py

QUEUE names the queue, if it isn't errands. A worker gets nothing while one of
a higher CONSUMER_PRIORITY is free.
"""

import os
import signal
import sys
import time
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = os.environ.get("QUEUE") or "errands"


def main(priority: int) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel: Any = connection.channel()
    channel.queue_declare(QUEUE, passive=True)
    channel.basic_qos(prefetch_count=1)  # what is here, nothing overtakes
    print(" [*] Waiting for messages. To exit press CTRL+C")
    mine = {"x-priority": priority}
    for method, _, body in channel.consume(QUEUE, arguments=mine):
        print(f" [x] Received {os.fsdecode(body)!r}")
        time.sleep(body.count(b"."))
        channel.basic_ack(method.delivery_tag)
        print(" [x] Done")
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        rank = int(os.environ.get("CONSUMER_PRIORITY") or 0)
        if not 0 <= rank <= 255:
            raise ValueError
    except ValueError:
        sys.exit("CONSUMER_PRIORITY wants a number from 0 to 255")
    try:
        main(rank)
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor, declare_errands.py")
