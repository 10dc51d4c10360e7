#!/usr/bin/env python3
"""Print the messages from the queue hello: python receive.py

Start it, then run send.py in another shell; or the other way round.
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
    # To the broker a body is bytes; that these are text is our agreement.
    print(f" [x] Received {body.decode(errors='replace')!r}")


def main() -> None:
    # Not closed: after a Ctrl-C in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.queue_declare(
        "hello", durable=True, arguments={"x-queue-type": "quorum"}
    )
    # auto_ack: the broker forgets a message as soon as it has sent it here.
    channel.basic_consume("hello", on_message, auto_ack=True)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    channel.start_consuming()  # returns when the queue is deleted
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
