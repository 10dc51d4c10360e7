#!/usr/bin/env python3
"""Send readings to a queue that keeps the latest five: the others are gone.

So many readings: python drop_oldest.py 8
"""

import os
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


def main(count: int) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(
            "latest_readings",
            durable=True,
            # No x-overflow: what is dropped is the oldest, "drop-head".
            arguments={"x-queue-type": "quorum", "x-max-length": 5},
        )
        for number in range(1, count + 1):
            channel.basic_publish(
                "",
                "latest_readings",
                f"reading {number}".encode(),
                PERSISTENT,
                mandatory=True,
            )
        print(f" [x] Sent {count} readings, all confirmed")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if not given.isdecimal() or not int(given):
        print("Usage: python drop_oldest.py N", file=sys.stderr)
        sys.exit(2)
    try:
        main(int(given))
    except KeyboardInterrupt:
        sys.exit(1)
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
