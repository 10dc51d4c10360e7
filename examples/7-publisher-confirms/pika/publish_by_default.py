#!/usr/bin/env python3
"""Publish a message to a queue, with nothing but the client's defaults.

Mistype the queue's name: python publish_by_default.py QUEUE MESSAGE...
"""

import os
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(queue: str, message: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.basic_publish("", queue, os.fsencode(message))
        print(f" [x] Sent {message!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        usage = "Usage: python publish_by_default.py QUEUE MESSAGE..."
        print(usage, file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1], " ".join(sys.argv[2:]))
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
