"""Append an event to the stream `events`: python append.py First event"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
# The oldest events go when there is a gigabyte of them.
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def main(event: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()  # publish, and wait for the broker's word
    channel.queue_declare("events", durable=True, arguments=STREAM)
    channel.basic_publish(
        exchange="",
        routing_key="events",
        body=os.fsencode(event),
        mandatory=True,
    )
    print(f" [x] Sent {event!r}")
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Usage: python append.py EVENT...")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(" ".join(sys.argv[1:]))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
