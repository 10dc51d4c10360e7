"""Do what `events` says, its place in me.offset: python read_resuming.py me"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def main(start: str | int, saved: Path) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.basic_qos(prefetch_count=100)  # without, it is refused
    channel.queue_declare("events", durable=True, arguments=STREAM)
    print(" [*] Waiting for events. To exit press CTRL+C")
    place = {"x-stream-offset": start}
    events: Any = channel.consume("events", arguments=place)
    for method, properties, body in events:
        offset = properties.headers["x-stream-offset"]
        print(f" [x] Received {os.fsdecode(body)!r} at offset {offset}")
        time.sleep(body.count(b"."))  # a dot is a second
        print(" [x] Done")
        # Saved after the work, and as a whole: a kill loses nothing.
        saved.with_suffix(".new").write_text(f"{offset}\n")
        saved.with_suffix(".new").replace(saved)
        channel.basic_ack(method.delivery_tag)
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python read_resuming.py NAME")
    saved = Path(f"{sys.argv[1]}.offset")
    start = int(saved.read_text()) + 1 if saved.exists() else "first"
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(start, saved)
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
