"""Read the stream `events` from some place on: python read.py first"""

import os
import re
import signal
import sys
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def main(start: str | int) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.basic_qos(prefetch_count=100)  # without, it is refused
    channel.queue_declare("events", durable=True, arguments=STREAM)

    def on_event(_: Any, method: Any, properties: Any, body: bytes) -> None:
        offset = properties.headers["x-stream-offset"]
        print(f" [x] Received {os.fsdecode(body)!r} at offset {offset}")
        # This removes nothing, but lets the broker send another one.
        channel.basic_ack(method.delivery_tag)

    # Before it says so: "next" is the next event from here on.
    place = {"x-stream-offset": start}
    channel.basic_consume("events", on_event, arguments=place)
    print(" [*] Waiting for events. To exit press CTRL+C")
    channel.start_consuming()
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    start = " ".join(sys.argv[1:])
    if not re.fullmatch(r"first|last|next|\d{1,18}", start):
        sys.exit("Usage: python read.py first|last|next|OFFSET")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(int(start) if start.isdecimal() else start)
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
