#!/usr/bin/env python3
"""Publish messages in batches of 100, then wait for all of its confirms.

How many (2000, if it isn't said): python publish_in_batches.py 2000
"""

import os
import sys
import time

import pika
from pika.channel import Channel
from pika.connection import Connection
from pika.exceptions import AMQPError
from pika.frame import Method
from pika.spec import Basic, BasicProperties, Queue

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
QUEUE = "confirmed_events"
BATCH = 100


class Publisher:
    """A connection that does not block, but calls back."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.fates: dict[int, str] = {}  # by delivery tag: 1, 2, 3...
        self.unconfirmed: set[int] = set()
        self.started = time.monotonic()
        self.why: Exception | None = None  # it ended too soon
        self.connection = pika.SelectConnection(
            pika.URLParameters(AMQP_URL),
            on_open_callback=self.on_open,
            on_open_error_callback=self.on_end,
            on_close_callback=self.on_end,
        )

    def on_open(self, connection: Connection) -> None:
        connection.channel(on_open_callback=self.on_channel)

    def on_channel(self, channel: Channel) -> None:
        self.channel = channel
        channel.add_on_close_callback(self.on_end)
        channel.add_on_return_callback(self.on_return)
        channel.confirm_delivery(self.on_confirm)
        channel.queue_declare(
            QUEUE,
            durable=True,
            arguments={"x-queue-type": "quorum"},
            callback=self.on_queue,
        )

    def on_queue(self, _: Method[Queue.DeclareOk]) -> None:
        self.started = time.monotonic()
        self.publish_more()

    def publish_more(self) -> None:
        """Publish a batch if none is under way; if there is no more, end."""
        if self.unconfirmed:
            return
        left = self.count - len(self.fates)
        for _ in range(min(BATCH, left)):
            self.publish()
        if not left:
            self.connection.ioloop.stop()

    def publish(self) -> None:
        number = len(self.fates) + 1
        self.fates[number] = "Unknown"  # until the broker has answered
        self.unconfirmed.add(number)
        stored = BasicProperties(
            delivery_mode=pika.DeliveryMode.Persistent, message_id=str(number)
        )
        body = f"event {number}".encode()
        self.channel.basic_publish("", QUEUE, body, stored, mandatory=True)

    def on_return(
        self,
        channel: Channel,
        method: Basic.Return,
        properties: BasicProperties,
        body: bytes,
    ) -> None:
        # The broker acks it, too, but only after this.
        self.fates[int(properties.message_id or 0)] = "Returned"

    def on_confirm(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        answer = frame.method
        tags = {answer.delivery_tag}
        if answer.multiple:  # one answer for all up to this one
            last = answer.delivery_tag
            tags = {tag for tag in self.unconfirmed if tag <= last}
        for tag in tags:
            if self.fates[tag] == "Unknown":
                acked = isinstance(answer, Basic.Ack)
                self.fates[tag] = "Confirmed" if acked else "Nacked"
        self.unconfirmed -= tags
        self.publish_more()

    def on_end(self, _: Channel | Connection, why: Exception) -> None:
        self.why = self.why or why
        self.connection.ioloop.stop()


def report(fates: dict[int, str], seconds: float) -> None:
    for fate in "Nacked", "Returned", "Unknown":
        if which := [number for number in fates if fates[number] == fate]:
            print(f" [!] {fate} {len(which)} messages:", *which)
    done = [*fates.values()].count("Confirmed")
    speed = f"{seconds:.2f} s: {done / seconds:.0f} a second"
    print(f" [x] Confirmed {done} messages in batches in {speed}")


def main(count: int) -> None:
    publisher = Publisher(count)
    try:
        publisher.connection.ioloop.start()  # until something stops it
    finally:
        if publisher.fates:
            report(publisher.fates, time.monotonic() - publisher.started)
    if publisher.why:
        raise publisher.why
    publisher.connection.close()
    publisher.connection.ioloop.start()  # until it is closed
    sys.exit(0 if {*publisher.fates.values()} == {"Confirmed"} else 1)


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "2000"
    if not given.isdecimal() or not int(given):
        print("Usage: python publish_in_batches.py [N]", file=sys.stderr)
        sys.exit(2)
    try:
        main(int(given))
    except KeyboardInterrupt:
        sys.exit(1)
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
