#!/usr/bin/env python3
"""Do what the stream `events` says, and after a restart go on from there.

    python read_resuming.py billing

keeps its place in the file billing.offset. A dot in an event is a second.
"""

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def load(place: Path) -> int | None:
    if not place.exists():
        return None
    text = place.read_text(errors="replace")
    if not re.fullmatch(r"\d{1,18}\n", text):
        sys.exit(f" [!] {place} holds no offset, but {text[:40]!r}")
    return int(text)


def work(event: str, offset: int) -> None:
    print(f" [x] Received {event!r} at offset {offset}")
    time.sleep(event.count("."))
    print(" [x] Done")


def save(place: Path, offset: int) -> None:
    # Replaced as a whole: a kill leaves the old offset or the new one.
    draft = place.with_name(f"{place.name}.new")
    draft.write_text(f"{offset}\n")
    draft.replace(place)


def main(place: Path) -> None:
    done = load(place)
    # Not closed: after a Ctrl-C in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.queue_declare("events", durable=True, arguments=STREAM)
    channel.basic_qos(prefetch_count=100)
    print(" [*] Waiting for events. To exit press CTRL+C")
    # Again from the event done last, to see that it is still there.
    where = {"x-stream-offset": "first" if done is None else done}
    resuming = done is not None
    messages: Any = channel.consume(
        "events", arguments=where, inactivity_timeout=10
    )
    for method, properties, body in messages:
        if not method:  # nothing in ten seconds
            if resuming:
                sys.exit(f" [!] {place} is of another stream")
            continue
        offset = properties.headers["x-stream-offset"]
        if resuming and offset != done:
            print(f" [!] Gone since {done}: all before {offset}")
        if not resuming or offset != done:
            work(os.fsdecode(body), offset)
            save(place, offset)  # not before the work is done
        resuming = False
        channel.basic_ack(method.delivery_tag)
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("Usage: python read_resuming.py NAME", file=sys.stderr)
        sys.exit(2)
    try:
        main(Path(f"{sys.argv[1]}.offset"))
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
