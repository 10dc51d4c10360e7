"""A task twice, to a classic queue: python new_task_transient.py A task."""

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
    channel.confirm_delivery()
    channel.queue_declare(
        "classic_tasks", durable=True, arguments={"x-queue-type": "classic"}
    )
    for mode in pika.DeliveryMode.Transient, pika.DeliveryMode.Persistent:
        properties = pika.BasicProperties(delivery_mode=mode)
        body = os.fsencode(task)
        channel.basic_publish("", "classic_tasks", body, properties)
        print(f" [x] Sent {task!r}, {mode.name.lower()}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(" ".join(sys.argv[1:]) or "Hello...")
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
