"""Read the stream `events` from some time ago on: python read_since.py 5m"""

import os
import signal
import sys
from datetime import UTC, datetime
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def parse(since: str) -> str | datetime:
    if since.endswith(tuple("YMDhms")):  # M: month, m: minute
        return since
    moment = datetime.fromisoformat(since).astimezone(UTC)
    return max(moment, datetime.fromtimestamp(0, UTC))  # AMQP's first


def main(place: dict[str, str | datetime]) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.basic_qos(prefetch_count=100)  # without, it is refused
    channel.queue_declare("events", durable=True, arguments=STREAM)
    print(" [*] Waiting for events. To exit press CTRL+C")
    events: Any = channel.consume("events", arguments=place)
    for method, properties, body in events:
        offset = properties.headers["x-stream-offset"]
        print(f" [x] Received {os.fsdecode(body)!r} at offset {offset}")
        channel.basic_ack(method.delivery_tag)
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    try:
        place = {"x-stream-offset": parse(" ".join(sys.argv[1:]))}
    except (ValueError, OverflowError):
        sys.exit("Usage: python read_since.py 5m|7D|2026-11-21")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(place)
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
