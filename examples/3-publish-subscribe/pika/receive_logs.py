"""Print every log message from now on: python receive_logs.py"""

import os
import signal
import sys
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.exchange_declare("logs", "fanout")
    # Our own queue: the broker names it, and deletes it when we leave.
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "logs")
    print(" [*] Waiting for logs. To exit press CTRL+C")
    # No acks: nobody else could have what we leave behind.
    messages: Any = channel.consume(queue, auto_ack=True)
    for _, _, body in messages:
        print(f" [x] Received {body.decode(errors='replace')!r}")
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
