#!/usr/bin/env python3
"""Publish messages one by one, each when the last one is confirmed.

How many (2000, if it isn't said): python publish_individually.py 2000
"""

import os
import sys
import time

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
QUEUE = "confirmed_events"
STORED = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


def main(count: int) -> None:
    # Not closed after Ctrl-C: in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(
        QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
    )
    done, started = 0, time.monotonic()
    try:
        for number in range(1, count + 1):
            try:
                body = f"event {number}".encode()
                channel.basic_publish("", QUEUE, body, STORED, mandatory=True)
                done += 1
            except UnroutableError:
                print(f" [!] Returned message {number}")
            except NackError:
                print(f" [!] Nacked message {number}")
            except BaseException:  # no answer: the broker may have it, or not
                print(f" [!] Unknown message {number}")
                raise
    finally:
        seconds = time.monotonic() - started
        speed = f"{seconds:.2f} s: {done / seconds:.0f} a second"
        print(f" [x] Confirmed {done} messages one by one in {speed}")
    connection.close()
    sys.exit(0 if done == count else 1)


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "2000"
    if not given.isdecimal() or not int(given):
        print("Usage: python publish_individually.py [N]", file=sys.stderr)
        sys.exit(2)
    try:
        main(int(given))
    except KeyboardInterrupt:
        sys.exit(1)
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
