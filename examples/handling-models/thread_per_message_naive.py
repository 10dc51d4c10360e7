#!/usr/bin/env python3
"""A thread a message; it loses jobs: python thread_per_message_naive.py

It acks what it has begun, not what it has done, and takes all there is.
"""

import os
import sys
import threading
import time

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def work(job: str) -> None:
    verb, number, *_ = job.split()
    if verb == "count":
        for _ in range(int(number)):
            pass
    else:
        time.sleep(float(number))
    print(f" [x] Done {job!r}")


def on_message(
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    job = os.fsdecode(body)
    print(f" [x] Received {job!r}")
    threading.Thread(target=work, args=(job,)).start()
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.queue_declare(
        "failed_jobs", durable=True, arguments={"x-queue-type": "quorum"}
    )
    channel.queue_declare(
        "jobs",
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            # Rejected jobs go to failed_jobs, and surely arrive.
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "failed_jobs",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    channel.basic_consume("jobs", on_message)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    channel.start_consuming()
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
