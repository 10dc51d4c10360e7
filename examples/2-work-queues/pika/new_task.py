"""Send a task; each dot is a second of work: python new_task.py Hello..."""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main(task: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()  # publish, and wait for the broker's word
    channel.queue_declare(
        "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )
    stored = pika.BasicProperties(delivery_mode=2)  # persistent
    body = os.fsencode(task)
    # mandatory: that there is no such queue is an error, too.
    channel.basic_publish("", "task_queue", body, stored, mandatory=True)
    print(f" [x] Sent {task!r}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(" ".join(sys.argv[1:]) or "Hello...")
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
