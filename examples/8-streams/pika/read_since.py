#!/usr/bin/env python3
"""Read the stream `events` from some time ago on: python read_since.py 5m"""

import os
import re
import sys
from datetime import UTC, datetime

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def parse(since: str) -> str | datetime:
    if re.fullmatch(r"[1-9]\d{0,3}[YMDhms]", since):  # M: month, m: minute
        return since
    moment = datetime.fromisoformat(since).timestamp()
    return datetime.fromtimestamp(max(0, moment), UTC)


def on_message(
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    offset = (properties.headers or {})["x-stream-offset"]
    print(f" [x] Received {os.fsdecode(body)!r} at offset {offset}")
    channel.basic_ack(method.delivery_tag)


def main(since: str | datetime) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.queue_declare("events", durable=True, arguments=STREAM)
    channel.basic_qos(prefetch_count=100)  # without, it is refused
    where = {"x-stream-offset": since}
    channel.basic_consume("events", on_message, arguments=where)
    print(" [*] Waiting for events. To exit press CTRL+C")
    channel.start_consuming()
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        since = parse(" ".join(sys.argv[1:]))
    except ValueError:
        print("Usage: python read_since.py 5m|7D|2026-11-21", file=sys.stderr)
        sys.exit(2)
    try:
        main(since)
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
