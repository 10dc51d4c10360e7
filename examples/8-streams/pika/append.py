#!/usr/bin/env python3
"""Append an event to the stream `events`: python append.py First event

It stays there, however often it is read: run read.py, as often as you like.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
# The oldest events go when there is a gigabyte of them.
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def main(event: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        # basic_publish returns once the stream has the event, or raises.
        channel.confirm_delivery()
        channel.queue_declare("events", durable=True, arguments=STREAM)
        try:
            channel.basic_publish(
                exchange="",
                routing_key="events",
                body=os.fsencode(event),
                mandatory=True,
            )
        except (NackError, UnroutableError):
            sys.exit(f" [!] Not sent {event!r}: the broker refused it")
        print(f" [x] Sent {event!r}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("Usage: python append.py EVENT...", file=sys.stderr)
        sys.exit(2)
    try:
        main(" ".join(sys.argv[1:]))
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
