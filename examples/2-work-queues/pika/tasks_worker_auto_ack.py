"""First draft of tasks_worker.py: python tasks_worker_auto_ack.py"""

import os
import signal
import sys
import time
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.queue_declare(
        "task_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )
    print(" [*] Waiting for messages. To exit press CTRL+C")
    messages: Any = channel.consume("task_queue", auto_ack=True)
    for _, _, body in messages:
        print(f" [x] Received {body.decode()!r}")
        time.sleep(body.count(b"."))
        print(" [x] Done")
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
