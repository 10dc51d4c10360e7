#!/usr/bin/env python3
"""Send a log message under a key of several words, like kern.critical.

    python emit_log_topic.py kern.critical Disk full

It is lost if nobody has asked for such: run receive_logs_topic.py first.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(routing_key: str, text: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare("topic_logs", "topic")
        try:
            channel.basic_publish(
                exchange="topic_logs",
                routing_key=routing_key,
                body=os.fsencode(text),
                mandatory=True,  # raise if no binding matches
            )
        except UnroutableError:
            sys.exit(f" [!] Lost {routing_key!r}:{text!r}: no queue takes it")
        print(f" [x] Sent {routing_key!r}:{text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        usage = "Usage: python emit_log_topic.py ROUTING_KEY MESSAGE..."
        print(usage, file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1], " ".join(sys.argv[2:]))
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
