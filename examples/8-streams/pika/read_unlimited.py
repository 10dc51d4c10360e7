"""First draft of read.py, which is refused: python read_unlimited.py"""

import os
import signal
import sys
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.queue_declare("events", durable=True, arguments=STREAM)
    print(" [*] Waiting for events. To exit press CTRL+C")
    events: Any = channel.consume("events")
    for method, _, body in events:
        print(f" [x] Received {os.fsdecode(body)!r}")
        channel.basic_ack(method.delivery_tag)
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
