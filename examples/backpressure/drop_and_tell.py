#!/usr/bin/env python3
"""Send readings to a queue that keeps five, for a second; see what it drops.

So many readings: python drop_and_tell.py 8
What is dropped, for whatever reason, goes to the queue dropped_readings.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
ARGUMENTS = {
    "x-queue-type": "quorum",
    "x-max-length": 5,
    "x-message-ttl": 1000,  # milliseconds
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dropped_readings",
}
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


def main(count: int) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        # First, or what is dropped before it is there has nowhere to go.
        channel.queue_declare(
            "dropped_readings",
            durable=True,
            arguments={"x-queue-type": "quorum"},
        )
        channel.queue_declare(
            "fresh_readings", durable=True, arguments=ARGUMENTS
        )
        for number in range(1, count + 1):
            body = f"reading {number}".encode()
            channel.basic_publish(
                "", "fresh_readings", body, PERSISTENT, mandatory=True
            )
        print(f" [x] Sent {count} readings, all confirmed")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if not given.isdecimal() or not int(given):
        print("Usage: python drop_and_tell.py N", file=sys.stderr)
        sys.exit(2)
    try:
        main(int(given))
    except KeyboardInterrupt:
        sys.exit(1)
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
