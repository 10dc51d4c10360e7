"""Send one message to the queue hello: python send.py"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()  # publish, and wait for the broker's word
    channel.queue_declare(
        "hello", durable=True, arguments={"x-queue-type": "quorum"}
    )
    text = "Hello World!"
    channel.basic_publish(
        exchange="", routing_key="hello", body=text.encode(), mandatory=True
    )
    print(f" [x] Sent {text!r}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
