#!/usr/bin/env python3
"""First draft of new_task.py: it hopes that the broker has the task.

Every dot is a second of work: python new_task_unconfirmed.py A task...
"""

import os
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(task: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        # Both sides declare the queue, so it does not matter which is first.
        channel.queue_declare(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        channel.basic_publish(
            exchange="", routing_key="task_queue", body=os.fsencode(task)
        )
        print(f" [x] Sent {task!r}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("Usage: python new_task_unconfirmed.py TASK...", file=sys.stderr)
        sys.exit(2)
    try:
        main(" ".join(sys.argv[1:]))
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
