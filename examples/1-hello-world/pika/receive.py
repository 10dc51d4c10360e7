"""Print the messages from the queue hello: python receive.py"""

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
    channel.queue_declare(
        "hello", durable=True, arguments={"x-queue-type": "quorum"}
    )
    print(" [*] Waiting for messages. To exit press CTRL+C")
    # auto_ack: the broker forgets a message as soon as it has sent it here.
    messages: Any = channel.consume("hello", auto_ack=True)
    for _, _, body in messages:
        # To the broker a body is bytes; that these are text is our agreement.
        print(f" [x] Received {body.decode(errors='replace')!r}")
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
