#!/usr/bin/env python3
"""Send a task to the work queue; every dot in it is a second of work.

    python new_task.py A task of three seconds...

It waits in the broker until a worker takes it: run tasks_worker.py.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(task: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        # With this, basic_publish returns once the broker has the message
        # safe, and raises if it refuses it.
        channel.confirm_delivery()
        channel.queue_declare(
            "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        try:
            channel.basic_publish(
                exchange="",
                routing_key="task_queue",
                body=os.fsencode(task),
                properties=pika.BasicProperties(
                    delivery_mode=pika.DeliveryMode.Persistent
                ),
                mandatory=True,  # raise, too, if there is no such queue
            )
        except (NackError, UnroutableError):
            sys.exit(f" [!] Not sent {task!r}: the broker refused it")
        print(f" [x] Sent {task!r}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("Usage: python new_task.py TASK...", file=sys.stderr)
        sys.exit(2)
    try:
        main(" ".join(sys.argv[1:]))
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
