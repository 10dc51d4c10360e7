"""Publish, at most 100 unconfirmed: python publish_asynchronously.py 2000"""

import os
import signal
import sys
import time
from itertools import islice
from typing import Any

import pika
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = "confirmed_events"
QUORUM = {"x-queue-type": "quorum"}
WINDOW = 100


class Publisher:
    """Nothing in it waits: pika calls it when something has happened."""

    def __init__(self, count: int) -> None:
        self.count, self.numbers = count, iter(range(1, count + 1))
        self.unanswered, self.returned = set[int](), set[int]()
        self.done, self.start = 0, 0.0

    def on_open(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self.on_channel)

    def on_channel(self, channel: Any) -> None:
        self.channel = channel
        channel.add_on_close_callback(self.on_end)
        channel.add_on_return_callback(self.on_return)
        channel.confirm_delivery(self.on_answer)
        channel.queue_declare(
            QUEUE, durable=True, arguments=QUORUM, callback=self.publish
        )

    def publish(self, _: object = None) -> None:
        self.start = self.start or time.monotonic()
        for number in islice(self.numbers, WINDOW - len(self.unanswered)):
            self.unanswered.add(number)
            body = f"event {number}".encode()
            stored = BasicProperties(delivery_mode=2, message_id=str(number))
            self.channel.basic_publish("", QUEUE, body, stored, mandatory=True)
        if not self.unanswered:  # and there is nothing more to publish
            left = self.count - self.done
            self.end(f"Failed: {left} refused or returned" if left else 0)

    def on_return(self, *message: Any) -> None:
        self.returned.add(int(message[2].message_id))  # it is acked, too

    def on_answer(self, frame: Any) -> None:
        tag, upto = frame.method.delivery_tag, frame.method.multiple
        tags = {n for n in self.unanswered if n == tag or (upto and n < tag)}
        self.unanswered -= tags
        if isinstance(frame.method, Basic.Ack):  # and not a Nack
            self.done += len(tags - self.returned)
        self.publish()

    def on_end(self, _: object, why: Exception) -> None:
        self.end(f"Failed: {why!r}. Try make doctor")

    def end(self, status: str | int) -> None:
        if self.start:
            done, spent = self.done, time.monotonic() - self.start
            print(f" [x] Confirmed {done} of {self.count} in {spent:.3f} s")
        sys.exit(status)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].isdecimal():
        sys.exit("Usage: python publish_asynchronously.py [COUNT]")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        url = pika.URLParameters(AMQP_URL)
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    it = Publisher(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    pika.SelectConnection(url, it.on_open, it.on_end, it.on_end).ioloop.start()
