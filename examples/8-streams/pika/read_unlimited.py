#!/usr/bin/env python3
"""First draft of read.py: it forgets to limit what it is sent.

Append an event, and see the broker refuse: python read_unlimited.py
"""

import os
import sys

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def on_message(
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    print(f" [x] Received {os.fsdecode(body)!r}")
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    # Not closed: after a Ctrl-C in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.basic_consume("events", on_message)
    print(" [*] Waiting for events. To exit press CTRL+C")
    channel.start_consuming()
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
