#!/usr/bin/env python3
"""Compute Fibonacci numbers for those who ask: python rpc_server.py

Start one or several, then ask with rpc_client.py.
"""

import os
import sys
from threading import Thread

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
LIMIT = 35  # takes seconds; every 5 more take 11 times as long


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def answer(request: bytes) -> tuple[str, str]:
    try:
        if not request.isdigit() or int(request) > LIMIT:
            raise ValueError(f"fib takes a number from 0 to {LIMIT}")
        print(f" [.] fib({int(request)})")
        return "result", str(fib(int(request)))
    except Exception as error:  # is the client's, and must not end the server
        print(f" [!] {error}")
        return "error", str(error)


def on_request(
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    done: list[tuple[str, str]] = []
    job = Thread(target=lambda: done.append(answer(body)), daemon=True)
    job.start()
    # It computes, and this thread stays free to answer heartbeats.
    while job.is_alive():
        job.join(timeout=1)
        channel.connection.process_data_events()
    kind, text = done[0]
    if properties.reply_to:
        reply = BasicProperties(
            type=kind, correlation_id=properties.correlation_id
        )
        channel.basic_publish("", properties.reply_to, text, reply)
    # Not before the reply: a server that dies must leave the request behind.
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    # Not closed: after a Ctrl-C in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    channel.queue_declare(
        "rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )
    channel.basic_consume("rpc_queue", on_request)
    print(" [*] Waiting for requests. To exit press CTRL+C")
    channel.start_consuming()  # returns when the queue is deleted
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
