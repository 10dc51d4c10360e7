#!/usr/bin/env python3
"""Publish a message to a queue, and say what the broker made of it.

Confirmed, returned or nacked: python publish_or_explain.py QUEUE MESSAGE...
"""

import os
import sys

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(queue: str, message: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        try:
            channel.basic_publish(
                exchange="",
                routing_key=queue,
                body=os.fsencode(message),
                properties=pika.BasicProperties(
                    delivery_mode=pika.DeliveryMode.Persistent
                ),
                mandatory=True,  # or it confirms what it throws away
            )
        except UnroutableError as error:
            reason = error.messages[0].method.reply_text
            sys.exit(f" [!] Returned {message!r}: {reason}")
        except NackError:  # its own text speaks of unroutable messages
            sys.exit(f" [!] Nacked {message!r}: {queue} refuses it")
        print(f" [x] Confirmed {message!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        usage = "Usage: python publish_or_explain.py QUEUE MESSAGE..."
        print(usage, file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1], " ".join(sys.argv[2:]))
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
