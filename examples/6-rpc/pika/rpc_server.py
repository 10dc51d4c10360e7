"""Compute Fibonacci numbers for those who ask: python rpc_server.py"""

import os
import signal
import sys
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
LIMIT = 35  # takes seconds; every 5 more take 11 times as long


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def answer(request: bytes) -> tuple[str, str]:
    if not request.isdigit() or len(request) > 9 or int(request) > LIMIT:
        return "error", f"fib takes a whole number from 0 to {LIMIT}"
    print(f" [.] fib({int(request)})")
    return "result", str(fib(int(request)))


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)  # the rest is for other servers
    channel.queue_declare(
        "rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )
    print(" [*] Waiting for requests. To exit press CTRL+C")
    requests: Any = channel.consume("rpc_queue")
    for method, request, body in requests:
        kind, text = answer(body)
        reply = pika.BasicProperties(type=kind)
        reply.correlation_id = request.correlation_id
        channel.basic_publish("", request.reply_to or "", text, reply)
        channel.basic_ack(method.delivery_tag)  # not before the reply
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
