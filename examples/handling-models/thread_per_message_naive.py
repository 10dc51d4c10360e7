"""A thread a message; it loses jobs: python thread_per_message_naive.py

It acks what it has begun, not what it has done, and takes all there is.
"""

import os
import signal
import sys
import threading
import time
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def work(job: str) -> None:
    verb, number, *_ = job.split()
    if verb == "count":
        for _ in range(int(number)):
            pass
    else:
        time.sleep(float(number))
    print(f" [x] Done {job!r}")


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.queue_declare(
        "jobs", durable=True, arguments={"x-queue-type": "quorum"}
    )
    print(" [*] Waiting for messages. To exit press CTRL+C")
    messages: Any = channel.consume("jobs")
    for method, _, body in messages:
        job = os.fsdecode(body)
        print(f" [x] Received {job!r}")
        threading.Thread(target=work, args=(job,)).start()
        channel.basic_ack(method.delivery_tag)
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
