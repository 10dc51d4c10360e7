#!/usr/bin/env python3
"""Say how many messages and consumers the queue hello has: python count.py

Run it before and after send.py and receive.py. It changes nothing.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main() -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        # passive: look, and make nothing. Without the queue it fails.
        found = channel.queue_declare("hello", passive=True).method
        print(f" [*] Messages: {found.message_count}")
        print(f" [*] Consumers: {found.consumer_count}")


if __name__ == "__main__":
    try:
        main()
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
