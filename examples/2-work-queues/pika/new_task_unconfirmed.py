"""First draft of new_task.py: python new_task_unconfirmed.py A task."""

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
    channel.queue_declare(
        "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )
    channel.basic_publish("", "task_queue", os.fsencode(task))
    print(f" [x] Sent {task!r}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(" ".join(sys.argv[1:]) or "Hello...")
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
