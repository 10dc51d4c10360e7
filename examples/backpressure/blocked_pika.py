#!/usr/bin/env python3
"""Publish an event every tenth of a second, also to a broker with an alarm.

So many events: python blocked_pika.py 3
"""

import os
import sys

import pika
from pika.channel import Channel
from pika.connection import Connection
from pika.exceptions import AMQPError, NackError
from pika.frame import Method
from pika.spec import Basic
from pika.spec import Connection as Spec

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


def on_blocked(_: Connection, frame: Method[Spec.Blocked]) -> None:
    print(f" [!] Blocked by the broker: {frame.method.reason}")


def on_unblocked(_: Connection, frame: Method[Spec.Unblocked]) -> None:
    print(" [x] Unblocked")


class Publisher:
    def __init__(self, count: int) -> None:
        self.count, self.confirmed = count, 0
        self.why: Exception | None = None
        # Not a BlockingConnection: its basic_publish waits for the confirm,
        # and while it waits it calls nobody back.
        self.connection = pika.SelectConnection(
            pika.URLParameters(AMQP_URL),
            on_open_callback=self.on_open,
            on_open_error_callback=self.end,
            on_close_callback=self.end,
        )

    def on_open(self, connection: Connection) -> None:
        connection.add_on_connection_blocked_callback(on_blocked)
        connection.add_on_connection_unblocked_callback(on_unblocked)
        connection.channel(on_open_callback=self.on_channel)

    def on_channel(self, channel: Channel) -> None:
        self.channel = channel
        channel.add_on_close_callback(self.end)
        channel.confirm_delivery(self.on_confirm)
        channel.queue_declare(
            "event_store",
            durable=True,
            arguments={"x-queue-type": "quorum"},
            callback=self.publish,
        )

    def publish(self, _: object = None) -> None:
        body = f"event {self.confirmed + 1}".encode()
        self.channel.basic_publish("", "event_store", body, PERSISTENT)

    def on_confirm(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        if isinstance(frame.method, Basic.Nack):
            return self.end(self.channel, NackError([]))
        self.confirmed += 1
        if self.confirmed < self.count:
            self.connection.ioloop.call_later(0.1, self.publish)
        else:
            self.connection.close()

    def end(self, _: Channel | Connection, why: Exception) -> None:
        self.why = self.why or why
        self.connection.ioloop.stop()


def main(count: int) -> None:
    publisher = Publisher(count)
    publisher.connection.ioloop.start()  # until something stops it
    if publisher.confirmed < count and publisher.why:
        raise publisher.why
    print(f" [x] Confirmed {count} events")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if not given.isdecimal() or not int(given):
        print("Usage: python blocked_pika.py N", file=sys.stderr)
        sys.exit(2)
    try:
        main(int(given))
    except KeyboardInterrupt:
        sys.exit(1)
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
