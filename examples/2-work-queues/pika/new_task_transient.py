#!/usr/bin/env python3
"""Send a task twice to a classic queue: once transient, once persistent.

    python new_task_transient.py A task.

Restart the broker, and see which of the two is still there.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(task: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(
            "classic_tasks",
            durable=True,
            arguments={"x-queue-type": "classic"},
        )
        for mode in pika.DeliveryMode.Transient, pika.DeliveryMode.Persistent:
            channel.basic_publish(
                exchange="",
                routing_key="classic_tasks",
                body=os.fsencode(task),
                properties=pika.BasicProperties(delivery_mode=mode),
            )
            print(f" [x] Sent {task!r}, {mode.name.lower()}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("Usage: python new_task_transient.py TASK...", file=sys.stderr)
        sys.exit(2)
    try:
        main(" ".join(sys.argv[1:]))
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
