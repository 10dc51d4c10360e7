#!/usr/bin/env python3
"""Print every log message from now on: python receive_logs.py

Run it in two shells or more, then emit_log.py in another: each prints all.
"""

import os
import sys

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def on_message(
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    print(f" [x] Received {body.decode(errors='replace')!r}")


def main() -> None:
    # Not closed: after a Ctrl-C in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.exchange_declare("logs", "fanout")
    # Our own queue: the broker names it, and deletes it when we leave.
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "logs")
    # No acks: nobody else could have what we leave behind.
    channel.basic_consume(queue, on_message, auto_ack=True)
    print(" [*] Waiting for logs. To exit press CTRL+C")
    channel.start_consuming()
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
