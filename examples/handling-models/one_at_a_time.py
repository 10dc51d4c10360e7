#!/usr/bin/env python3
"""Do jobs one after the other: python one_at_a_time.py

A job must not take longer than the heartbeat: 60 s, unless agreed otherwise.
"""

import os
import signal
import sys
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


def on_message(
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    job = os.fsdecode(body)
    print(f" [x] Received {job!r}")
    try:
        work(job)
    except Exception as error:
        print(f" [!] Failed {job!r}: {error}")
        channel.basic_reject(method.delivery_tag, requeue=False)
    else:
        print(f" [x] Done {job!r}")
        channel.basic_ack(method.delivery_tag)


def main() -> None:
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
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
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        for each in signal.SIGINT, signal.SIGTERM:
            signal.signal(each, signal.SIG_DFL)  # the next one ends us at once
        # A handler runs in the middle of anything: let pika choose the moment.
        connection.add_callback_threadsafe(channel.stop_consuming)

    for each in signal.SIGINT, signal.SIGTERM:
        signal.signal(each, stop)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    channel.start_consuming()  # returns when stopped, or the queue is deleted
    if not stopped:
        raise ConnectionError("the broker ended the consumer")
    connection.close()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
