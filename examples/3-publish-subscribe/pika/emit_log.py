#!/usr/bin/env python3
"""Send a log message to everyone who listens: python emit_log.py Disk full

Run receive_logs.py first, in as many shells as you like: who isn't there
yet won't get it.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(text: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        # Confirmed: the message is in every queue that is bound by now.
        channel.confirm_delivery()
        channel.exchange_declare("logs", "fanout")
        # Not mandatory: that nobody listens is no failure of the sender's.
        channel.basic_publish(
            exchange="logs", routing_key="", body=os.fsencode(text)
        )
        print(f" [x] Sent {text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("Usage: python emit_log.py TEXT...", file=sys.stderr)
        sys.exit(2)
    try:
        main(" ".join(sys.argv[1:]))
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
