#!/usr/bin/env python3
"""Read the stream `events` from the first, last or next one, or an offset.

python read.py first
"""

import os
import re
import sys

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def on_message(
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    offset = (properties.headers or {})["x-stream-offset"]
    print(f" [x] Received {os.fsdecode(body)!r} at offset {offset}")
    # This removes nothing, but lets the broker send another one.
    channel.basic_ack(method.delivery_tag)


def main(start: str | int) -> None:
    # Not closed: after a Ctrl-C in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.queue_declare("events", durable=True, arguments=STREAM)
    channel.basic_qos(prefetch_count=100)  # without, it is refused
    channel.basic_consume(
        "events", on_message, arguments={"x-stream-offset": start}
    )
    print(" [*] Waiting for events. To exit press CTRL+C")
    channel.start_consuming()
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    start = sys.argv[1] if len(sys.argv) == 2 else ""
    if not re.fullmatch(r"first|last|next|\d{1,18}", start):
        print("Usage: python read.py first|last|next|OFFSET", file=sys.stderr)
        sys.exit(2)
    try:
        main(int(start) if start.isdecimal() else start)
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
