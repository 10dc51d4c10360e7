"""Publish 50 events, also to a broker with an alarm: python blocked_pika.py"""

import os
import signal
import sys
from typing import Any

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUORUM = {"x-queue-type": "quorum"}
STORED = pika.BasicProperties(delivery_mode=2)  # persistent
events = [f"event {number}".encode() for number in range(1, 51)]


def on_open(it: Any) -> None:
    it.add_on_connection_blocked_callback(
        lambda _, why: print(" [!] Blocked by the broker:", why.method.reason)
    )
    it.add_on_connection_unblocked_callback(lambda *_: print(" [x] Unblocked"))
    it.channel(on_open_callback=on_channel)


def on_channel(channel: Any) -> None:
    def publish() -> None:
        channel.basic_publish("", "event_store", events[0], STORED, True)

    def on_answer(frame: Any) -> None:
        if "Nack" in frame.method.NAME:
            on_end(channel, frame.method)
        events.pop(0)
        if not events:
            print(" [x] Confirmed 50 events")
            sys.exit()
        channel.connection.ioloop.call_later(0.1, publish)

    channel.add_on_close_callback(on_end)
    channel.add_on_return_callback(on_end)
    channel.confirm_delivery(on_answer)
    channel.queue_declare("event_store", durable=True, arguments=QUORUM)
    publish()


def on_end(_: object, why: object, *message: object) -> None:
    sys.exit(f"Failed: {why!r}. Try make doctor")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        parameters = pika.URLParameters(AMQP_URL)
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    # Not a BlockingConnection: while it waits it calls nobody back.
    pika.SelectConnection(parameters, on_open, on_end, on_end).ioloop.start()
