#!/usr/bin/env python3
"""Send one message to the queue hello: python send.py

It waits in the broker until receive.py takes it.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main() -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        # Makes basic_publish wait until the broker says that it has it.
        channel.confirm_delivery()
        # The receiver declares it, too: whoever comes first makes the queue.
        channel.queue_declare(
            "hello", durable=True, arguments={"x-queue-type": "quorum"}
        )
        text = "Hello World!"
        channel.basic_publish(
            exchange="",
            routing_key="hello",
            body=text.encode(),
            mandatory=True,  # fail if there is no such queue
        )
        print(f" [x] Sent {text!r}")


if __name__ == "__main__":
    try:
        main()
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
