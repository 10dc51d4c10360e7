"""Publish 50 events, also to a broker with an alarm: python blocked_pika.py"""

import logging
import os
import signal
import sys
from itertools import count
from typing import Any

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
COUNT, QUORUM = 50, {"x-queue-type": "quorum"}
STORED = pika.BasicProperties(delivery_mode=2)  # persistent


def on_open(connection: Any) -> None:
    connection.add_on_connection_blocked_callback(
        lambda _, it: print(f" [!] Blocked by the broker: {it.method.reason}")
    )
    free = connection.add_on_connection_unblocked_callback
    free(lambda *_: print(" [x] Unblocked"))
    connection.channel(on_open_callback=on_channel)


def on_channel(channel: Any) -> None:
    numbers = count(1)

    def publish(_: object = None) -> None:
        if (number := next(numbers)) > COUNT:
            print(f" [x] Confirmed {COUNT} events")
            sys.exit()
        channel.basic_publish("", "event_store", b"event %d" % number, STORED)

    def on_confirm(frame: Any) -> None:
        if "Nack" in frame.method.NAME:
            fail(channel, "the queue is full")
        channel.connection.ioloop.call_later(0.1, publish)

    channel.add_on_close_callback(fail)
    channel.confirm_delivery(on_confirm)
    channel.queue_declare(
        "event_store", durable=True, arguments=QUORUM, callback=publish
    )


def fail(_: object, why: object) -> None:
    sys.exit(f"Failed: {why!r}. Try make doctor")


if __name__ == "__main__":
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        parameters = pika.URLParameters(AMQP_URL)
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    # Not a BlockingConnection: while it waits it calls nobody back.
    pika.SelectConnection(parameters, on_open, fail, fail).ioloop.start()
