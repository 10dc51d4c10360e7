"""Publish, one after the other: python publish_individually.py 2000"""

import os
import signal
import sys
from time import monotonic

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = "confirmed_events"
QUORUM = {"x-queue-type": "quorum"}


def main(count: int) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()  # from now on, basic_publish waits
    channel.queue_declare(QUEUE, durable=True, arguments=QUORUM)
    stored = pika.BasicProperties(delivery_mode=2)
    done, t0 = 0, monotonic()
    try:
        for body in (f"event {n}".encode() for n in range(1, count + 1)):
            channel.basic_publish("", QUEUE, body, stored, mandatory=True)
            done += 1
    finally:
        print(f" [x] Confirmed {done} of {count} in {monotonic() - t0:.3f} s")
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].isdecimal():
        sys.exit("Usage: python publish_individually.py [COUNT]")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
