"""Send readings that are kept a second, and five: python drop_and_tell.py 8

What is dropped, for whatever reason, goes to the queue dropped_readings.
"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
ARGUMENTS = {
    "x-queue-type": "quorum",
    "x-max-length": 5,
    "x-message-ttl": 1000,  # milliseconds
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dropped_readings",
}


def main(count: int) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()
    # First, or what is dropped before it is there has nowhere to go.
    channel.queue_declare(
        "dropped_readings", durable=True, arguments={"x-queue-type": "quorum"}
    )
    channel.queue_declare("fresh_readings", durable=True, arguments=ARGUMENTS)
    stored = pika.BasicProperties(delivery_mode=2)  # persistent
    for number in range(1, count + 1):
        body = f"reading {number}".encode()
        channel.basic_publish(
            "", "fresh_readings", body, stored, mandatory=True
        )
    print(f" [x] Sent {count} readings, all confirmed")
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) < 2 or not sys.argv[1].isdecimal():
        sys.exit("Usage: python drop_and_tell.py N")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        main(int(sys.argv[1]))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
