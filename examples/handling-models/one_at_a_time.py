"""Do jobs one after the other: python one_at_a_time.py

A job must not take longer than the heartbeat: 60 s, unless agreed otherwise.
"""

import os
import signal
import sys
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


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)  # no second job before the ack
    channel.queue_declare(
        "jobs", durable=True, arguments={"x-queue-type": "quorum"}
    )
    print(" [*] Waiting for messages. To exit press CTRL+C")
    messages: Any = channel.consume("jobs")
    for method, _, body in messages:
        job = os.fsdecode(body)
        print(f" [x] Received {job!r}")
        work(job)
        print(f" [x] Done {job!r}")
        channel.basic_ack(method.delivery_tag)  # not before the work is done
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
